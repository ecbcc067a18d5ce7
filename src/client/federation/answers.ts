import { Fault } from "../../errors.ts";
import type { Fleet, FleetInput, FleetOperation, FleetOutput } from "./ground.ts";

/** What one server answered, or why it did not. */
export type Answer<T> =
  | { readonly index: number; readonly value: T; readonly fault: null }
  | { readonly index: number; readonly value: null; readonly fault: Fault };

/** Failures that mean that a server cannot be asked now. */
const ABSENT: ReadonlySet<string> = new Set([
  "unreachable",
  "timed_out",
  "unavailable",
  "outcome_unknown",
  "rate_limited",
  "tls_refused",
  "pin_mismatch",
  "session_invalid",
  "not_logged_in",
  "login_failed",
]);

/** True for a failure that says nothing about a request: the server could not be asked. */
export const isAbsent = (fault: Fault): boolean => ABSENT.has(fault.code);

/** Asks one server; its failure is an answer too, whatever code a hostile server gives it. */
export async function ask<N extends FleetOperation>(
  fleet: Fleet,
  index: number,
  name: N,
  input: FleetInput<N>,
): Promise<Answer<FleetOutput<N>>> {
  try {
    return { index, value: await fleet.call(index, name, input), fault: null };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return { index, value: null, fault: error };
  }
}

/** Asks several servers at once; the answers stand in the order of `indices`. */
export function askAll<N extends FleetOperation>(
  fleet: Fleet,
  indices: readonly number[],
  name: N,
  input: (index: number) => FleetInput<N>,
): Promise<readonly Answer<FleetOutput<N>>[]> {
  return Promise.all(indices.map((index) => ask(fleet, index, name, input(index))));
}

/** Indices of all servers of the federation. */
export const everyone = (fleet: Fleet): readonly number[] => fleet.manifest.servers.map(({ index }) => index);

/** Why servers did not answer, in one clause each. */
export function complaints(manifest: Fleet["manifest"], answers: readonly Answer<unknown>[]): string {
  return answers
    .flatMap((a) => (a.fault === null ? [] : [`${urlOf(manifest, a.index)}: ${reasonAt(manifest, a.index, a.fault)}`]))
    .join("; ");
}

/** What went wrong at a server, where it is said already which server it was. */
export function reasonAt(manifest: Fleet["manifest"], index: number, { message }: Fault): string {
  const said = `server ${index} (${urlOf(manifest, index)}): `;
  return message.startsWith(said) ? message.slice(said.length) : message;
}

/** Where the server of an index is. */
export function urlOf(manifest: Fleet["manifest"], index: number): string {
  return manifest.servers.find((s) => s.index === index)?.url ?? `server ${index}`;
}
