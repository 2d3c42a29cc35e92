import { Bindings } from './bindings.js';
import type { Kernel } from './call.js';
import { spread } from './gpu.js';

/** Sine and cosine to the last bits: quarter turns are taken off in parts that are exact, polynomials are Cephes' (Moshier). */
export const sineCosine: Kernel = (call) => {
  const count = call.size('x');
  const bindings = new Bindings();
  const x = bindings.read(call.buffer('x'));
  const [sine, cosine] = [call.output(call.shape('x')), call.output(call.shape('x'))];
  const [toSine, toCosine] = [bindings.write(sine.buffer), bindings.write(cosine.buffer)];
  call.gpu.pipelines.run({
    name: 'sineCosine',
    bindings,
    numbers: { count },
    workgroup: 64,
    groups: spread(Math.ceil(count / 64)),
    code: () => ({
      main: `
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= u.count) { return; }
  let turns = floor(${x}[i] * 0.63661977236758134 + 0.5);
  let r = ((${x}[i] - turns * 1.5703125) - turns * 4.837512969970703e-4) - turns * 7.549789954891882e-8;
  let z = r * r;
  let s = r + r * z * ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1);
  let c = 1.0 - 0.5 * z + z * z * ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2);
  let quarter = i32(turns) & 3;
  let odd = (quarter & 1) == 1;
  let sineHere = select(s, c, odd);
  let cosineHere = select(c, -s, odd);
  ${toSine}[i] = select(sineHere, -sineHere, quarter >= 2);
  ${toCosine}[i] = select(cosineHere, -cosineHere, quarter >= 2);`,
    }),
  });
  return [sine.info, cosine.info];
};
