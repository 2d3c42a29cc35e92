/**
 * c, four rows `ldc` bytes apart of the 32 bytes that four doubles or eight singles take, = or += the product of two packed
 * panels of `kc` steps, 32 bytes a step: the first four values of one against all of the other. Unrolled, the loop is
 * slower: V8 then spills.
 */
export function tile<T>(a: usize, b: usize, kc: i32, c: usize, ldc: usize, accumulate: bool): void {
  let c00 = v128.splat<T>(0);
  let c01 = c00;
  let c10 = c00;
  let c11 = c00;
  let c20 = c00;
  let c21 = c00;
  let c30 = c00;
  let c31 = c00;
  const end = a + (<usize>kc << 5);
  while (a < end) {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let s = v128.load_splat<T>(a);
    c00 = v128.add<T>(c00, v128.mul<T>(s, b0));
    c01 = v128.add<T>(c01, v128.mul<T>(s, b1));
    s = v128.load_splat<T>(a, sizeof<T>());
    c10 = v128.add<T>(c10, v128.mul<T>(s, b0));
    c11 = v128.add<T>(c11, v128.mul<T>(s, b1));
    s = v128.load_splat<T>(a, 2 * sizeof<T>());
    c20 = v128.add<T>(c20, v128.mul<T>(s, b0));
    c21 = v128.add<T>(c21, v128.mul<T>(s, b1));
    s = v128.load_splat<T>(a, 3 * sizeof<T>());
    c30 = v128.add<T>(c30, v128.mul<T>(s, b0));
    c31 = v128.add<T>(c31, v128.mul<T>(s, b1));
    a += 32;
    b += 32;
  }
  if (accumulate) {
    let p = c;
    c00 = v128.add<T>(c00, v128.load(p));
    c01 = v128.add<T>(c01, v128.load(p, 16));
    p += ldc;
    c10 = v128.add<T>(c10, v128.load(p));
    c11 = v128.add<T>(c11, v128.load(p, 16));
    p += ldc;
    c20 = v128.add<T>(c20, v128.load(p));
    c21 = v128.add<T>(c21, v128.load(p, 16));
    p += ldc;
    c30 = v128.add<T>(c30, v128.load(p));
    c31 = v128.add<T>(c31, v128.load(p, 16));
  }
  v128.store(c, c00);
  v128.store(c, c01, 16);
  c += ldc;
  v128.store(c, c10);
  v128.store(c, c11, 16);
  c += ldc;
  v128.store(c, c20);
  v128.store(c, c21, 16);
  c += ldc;
  v128.store(c, c30);
  v128.store(c, c31, 16);
}
