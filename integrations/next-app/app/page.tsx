import { Gates } from './gates';

export default function Page() {
  return (
    <main>
      <h1>Which layers stay</h1>
      <Gates />
    </main>
  );
}
