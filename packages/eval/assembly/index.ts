export { bandToBidiagonal } from './chase';
export { bidiagonalValues } from './bidiagonal';
export { factorProduct, largestLeft, pivotedCholesky } from './cholesky';
export { gemm, gemmScratch } from './gemm';
export { reduceToBand } from './band';
export { singleProducts } from './single';
