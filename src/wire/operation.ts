import type { Codec } from "./codec.ts";

/**
 * How a caller is authenticated: `none` is JSON inside TLS; `session` is a sealed frame (docs/protocol.md §4); `token`
 * is JSON inside TLS with the token of a workspace, which only reads (docs/protocol.md §9.7).
 * `mutation` marks what changes the account: idempotent by request id, compare-and-swap on the signed state.
 */
export interface OperationShape {
  readonly auth: "none" | "session" | "token";
  readonly mutation: boolean;
  readonly input: Codec<never> | Codec<unknown>;
  readonly output: Codec<never> | Codec<unknown>;
}

interface Operation<A, M, I, O> {
  readonly auth: A;
  readonly mutation: M;
  readonly input: Codec<I>;
  readonly output: Codec<O>;
}

/** One row of the table of operations. */
export function op<const A extends "none" | "session" | "token", const M extends boolean, I, O>(
  auth: A,
  mutation: M,
  input: Codec<I>,
  output: Codec<O>,
): Operation<A, M, I, O> {
  return { auth, mutation, input, output };
}
