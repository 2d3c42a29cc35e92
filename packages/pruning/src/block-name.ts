/** The block that a tensor of a stack belongs to, and its name within the block (with its dot); nothing for other tensors. */
export function blockOf(name: string, stack: string): { index: number; rest: string } | undefined {
  if (!name.startsWith(`${stack}.`)) return undefined;
  const match = /^(\d{1,6})(\..+)$/.exec(name.slice(stack.length + 1));
  return match === null ? undefined : { index: Number(match[1]), rest: match[2]! };
}
