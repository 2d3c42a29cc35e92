import { describe, expect, it } from 'vitest';
import { hasMpi, jsonLines, mpich, mpirun, runProgram } from './run-program.js';

interface Values {
  rank: number;
  size: number;
  bytes: number[];
  numbers: number[];
  waited: number;
  ticks: number;
  sum: { float: number[]; last: number; double: number[] };
  mean: Values['sum'];
  max: Values['sum'];
  lacking: string[][];
}

/** What `values.mjs` has to write on each of `size` ranks. */
function expectValues(lines: Values[], size: number): void {
  const ranks = Array.from({ length: size }, (_, rank) => rank);
  expect(lines.map((line) => line.rank).toSorted()).toEqual(ranks);
  const total = ranks.reduce((a, b) => a + b, 0);
  for (const line of lines) {
    expect(line.size).toBe(size);
    expect(line.sum.float).toEqual([0, 1, 2, 3, 4, 5, 6, 0].map((i) => total + size * i));
    expect(line.sum.last).toBe(total + size * (99_999 % 7));
    expect(line.mean.float).toEqual([0, 1, 2, 3, 4, 5, 6, 0].map((i) => total / size + i));
    expect(line.max.float).toEqual([0, 1, 2, 3, 4, 5, 6, 0].map((i) => size - 1 + i));
    expect(line.sum.double[0]).toBeCloseTo(total + 0.1 * size, 14);
    expect(line.max.double).toEqual([0.1 + size - 1, -1]);
    expect(line.lacking).toEqual(Array(2).fill(['NaN', 'NaN', String(size - 1)]));
    expect(line.bytes).toEqual([254, 255, 0, 1]);
    expect(line.numbers).toEqual([1.5, 2.5]);
    if (line.rank !== size - 1 && size > 1) {
      expect(line.waited).toBeGreaterThan(150);
      expect(line.ticks).toBeGreaterThan(0); // none while a call blocks
    }
  }
}

describe.skipIf(!hasMpi)('under Open MPI’s mpirun (skipped where there is none)', () => {
  it.each([2, 3])('%i ranks get the values of all, and their event loops go on', async (size) => {
    const ran = await runProgram('values', [], { under: mpirun(size) });
    expect(ran.code, ran.stderr).toBe(0);
    expectValues(jsonLines<Values>(ran), size);
  });

  it.each(['throws', 'rejects', 'exits', 'leaves'])('a rank that %s ends the job with its name', async (how) => {
    const ran = await runProgram('fails', [how], { under: mpirun(3) });
    expect(ran.code).not.toBe(0);
    expect(ran.stderr).toContain('rank 1 of 3 ended with exit code');
    if (how === 'throws' || how === 'rejects') expect(ran.stderr).toContain('out of luck');
    expect(ran.stdout).not.toContain('not reached');
    expect(ran.seconds).toBeLessThan(20);
  });

  it('a rank that is killed ends the job, and mpirun names it', async () => {
    const ran = await runProgram('fails', ['is killed'], { under: mpirun(2) });
    expect(ran.code).not.toBe(0);
    expect(ran.stderr).toMatch(/rank 1/);
    expect(ran.seconds).toBeLessThan(20);
  });

  it('a library of another MPI than the launcher’s is told from a job of one', async () => {
    const ran = await runProgram('values', [], { env: { PMI_SIZE: '4' } });
    expect(ran.code).toBe(1);
    expect(ran.stderr).toMatch(/started 4 processes \(PMI_SIZE\).*sees 1.*different MPIs/s);
  });
});

describe('without a launcher', () => {
  it('there is one rank, and no library is loaded', async () => {
    const ran = await runProgram('values', [], { env: { TINYFUSION_MPI_LIBRARY: '/nowhere/libmpi.so' } });
    expect(ran.code, ran.stderr).toBe(0);
    expect(jsonLines<Values>(ran)).toMatchObject([{ rank: 0, size: 1 }]);
  });

  it('a library that is not there is an error that names it', async () => {
    const ran = await runProgram('values', [], { env: { OMPI_COMM_WORLD_SIZE: '2', TINYFUSION_MPI_LIBRARY: '/nowhere/libmpi.so' } });
    expect(ran.code).toBe(1);
    expect(ran.stderr).toMatch(/the MPI library cannot be loaded: \/nowhere\/libmpi\.so/);
  });

  it('a library that is no MPI is refused', async () => {
    const ran = await runProgram('values', ['libm.so.6']);
    expect(ran.code).toBe(1);
    expect(ran.stderr).toMatch(/libm\.so\.6: .*MPI_Get_library_version/);
  });
});

describe.skipIf(mpich(2) === undefined)('under MPICH’s mpiexec (skipped where TINYFUSION_TEST_MPICH is not set)', () => {
  it.each([2, 3])('%i ranks get the values of all', async (size) => {
    const { under, env, library } = mpich(size)!;
    const ran = await runProgram('values', [library], { under, env });
    expect(ran.code, ran.stderr).toBe(0);
    expectValues(jsonLines<Values>(ran), size);
  });

  it('a rank that throws ends the job with its name', async () => {
    const { under, env, library } = mpich(3)!;
    const ran = await runProgram('fails', ['throws'], { under, env: { ...env, TINYFUSION_MPI_LIBRARY: library } });
    expect(ran.code).not.toBe(0);
    expect(ran.stderr).toContain('rank 1 of 3 ended with exit code 1');
  });
});
