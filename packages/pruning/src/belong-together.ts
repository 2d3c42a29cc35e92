import type { PruneRecord } from './prune-record.js';

/** Whether a shallow model and a teacher belong together, and why not. */
export type Belonging = { readonly ok: true } | { readonly ok: false; readonly reason: string };

/**
 * Whether a shallow model was cut from the teacher with this hash (`stateDictHash` of its weights): what distillation
 * should ask before it pairs layers.
 */
export function belongTogether(record: PruneRecord, teacherHash: string): Belonging {
  if (!/^[0-9a-f]{64}$/i.test(teacherHash)) return { ok: false, reason: `${JSON.stringify(teacherHash)} is no SHA-256 of a teacher; take stateDictHash of its weights` };
  const hash = teacherHash.toLowerCase();
  const { name, sha256 } = record.teacher;
  if (sha256 === hash) return { ok: true };
  const was = `the model was cut from ${name} (${sha256.slice(0, 12)}…)`;
  let generations = 1;
  for (let { from } = record; from !== undefined; { from } = from, generations++) {
    if (from.teacher.sha256 === hash) return { ok: false, reason: `${was}; this teacher is ${from.teacher.name}, from which that one was cut ${generations === 1 ? 'in turn' : `${generations} generations before`}: its layers are numbered differently. Use ${name}, or map the layers yourself` };
  }
  return { ok: false, reason: `${was}, this teacher is another model (${hash.slice(0, 12)}…); load ${name}, or cut this one` };
}
