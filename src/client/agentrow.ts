import type { Params } from "./agentparams.ts";

/** Whose value a call gives or tells something about: names or key ids as given, or the account as a whole. */
export type Touched = readonly string[] | "account";

/** One method of the client API as the agent serves it. */
export interface Row<T> {
  readonly params: Params<T>;
  /** What the owner is asked about first, where confirmation is on. */
  readonly touches: (input: T) => Touched;
  /** False for what a prompt may ask every second: it does not put the idle time off. */
  readonly use: (input: T) => boolean;
}

export function row<T>(
  reader: Params<T>,
  touches: (input: T) => Touched = () => [],
  use: (input: T) => boolean = () => true,
): Row<T> {
  return { params: reader, touches, use };
}
