/** An error as the page shows it. */
export function failure(error: unknown): { error: string } {
  return { error: error instanceof Error ? error.message : String(error) };
}
