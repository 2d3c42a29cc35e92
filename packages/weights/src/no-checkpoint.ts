import { CheckpointError } from '@tinyfusion/core';

/** A file that is no checkpoint at all, as a page of a server's, or only the beginning of one. */
export class NoCheckpointError extends CheckpointError {}
