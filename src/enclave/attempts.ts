import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { FederatedRequestId } from "../ids.ts";
import type { SignedMessage } from "../protocol/federation/message.ts";
import { coordinatorOf, type FederatedRequest } from "../protocol/federation/request.ts";
import type { Of } from "../wire/codec.ts";
import type { step as stepCodec } from "./api.ts";
import type { Evidence, Verified } from "./evidence.ts";

export type Step = Of<typeof stepCodec>;

/** One server's part in one attempt: a ceremony, a signature or a release. */
export interface Machine {
  /** All that this server has said so far, with the outcome once there is one. */
  readonly step: () => Step;
  /** Takes what others have said; gives the same as {@link step} afterwards. */
  receive(messages: readonly SignedMessage[]): Promise<Step>;
  /** Forgets its secrets. */
  wipe(): void;
}

/** An attempt that this enclave takes part in. */
export interface Attempt {
  readonly verified: Verified;
  /** What its policies are asked with again before it says what counts. */
  readonly evidence: Evidence;
  readonly attempt: number;
  readonly orderHash: Uint8Array;
  readonly machine: Machine;
}

/** Attempts held at once, of one requester, and of one registry for all that go through its keyrings. */
export const ATTEMPTS_MAX = { all: 256, ofOne: 32, ofRegistry: 128 } as const;

/** What an enclave holds of ceremonies: in memory alone, one attempt a request, gone with the process. */
export interface Attempts {
  get(requestId: FederatedRequestId): Attempt | undefined;
  /** Holds it in place of an earlier one of the same request. */
  put(attempt: Attempt): void;
  /**
   * Makes room for one more: first what has expired goes, then what is over; and where all have filled it, the oldest
   * of whoever holds most: a requester, or of what goes through keyrings a registry.
   *
   * @throws Fault rate_limited while all is under way
   */
  makeRoom(request: FederatedRequest, requestId: FederatedRequestId, nowMs: number): void;
  forget(requestId: FederatedRequestId): void;
  clear(): void;
}

export function createAttempts(): Attempts {
  const held = new Map<FederatedRequestId, Attempt>();

  function forget(requestId: FederatedRequestId): void {
    held.get(requestId)?.machine.wipe();
    held.delete(requestId);
  }

  /** The oldest of `among` that nobody needs any more. */
  function dispensable(among: readonly Attempt[], nowMs: number): Attempt | undefined {
    return (
      among.find(({ verified }) => nowMs >= verified.request.expiresAtMs) ??
      among.find(({ machine }) => machine.step().outcome !== null)
    );
  }

  /** The oldest of whoever holds most, and more than `own`: nobody keeps the others out. */
  function oldestOfMost(among: readonly Attempt[], own: number): Attempt | undefined {
    const byHolder = new Map<string, Attempt[]>();
    for (const one of among) {
      const name = coordinatorOf(one.verified.request).toHex();
      byHolder.set(name, [...(byHolder.get(name) ?? []), one]);
    }
    const [most] = [...byHolder.values()].sort((a, b) => b.length - a.length);
    return most && most.length > own ? most[0] : undefined;
  }

  function drop(least: Attempt | undefined): void {
    if (least) forget(least.verified.requestId);
    else
      throw new Fault("rate_limited", "the enclave takes part in too many attempts at once", { retryAfterMs: 5_000 });
  }

  return {
    get: (requestId) => held.get(requestId),
    put(attempt) {
      forget(attempt.verified.requestId);
      held.set(attempt.verified.requestId, attempt);
    },
    makeRoom(request, requestId, nowMs) {
      const holder = coordinatorOf(request);
      const others = [...held.values()].filter(({ verified }) => verified.requestId !== requestId);
      const own = others.filter(({ verified }) => equalBytes(coordinatorOf(verified.request), holder));
      if (own.length >= (request.keyring ? ATTEMPTS_MAX.ofRegistry : ATTEMPTS_MAX.ofOne)) drop(dispensable(own, nowMs));
      else if (others.length >= ATTEMPTS_MAX.all)
        drop(dispensable(others, nowMs) ?? oldestOfMost(others, own.length + 1));
    },
    forget,
    clear() {
      for (const requestId of [...held.keys()]) forget(requestId);
    },
  };
}
