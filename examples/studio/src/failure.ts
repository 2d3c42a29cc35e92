/** An error as the page shows it. */
export function failure(error: unknown): { error: string } {
  const message = error instanceof Error ? error.message : String(error);
  return { error: message.charAt(0).toUpperCase() + message.slice(1) };
}
