import { expect, test } from "bun:test";
import { ATTEMPTS_MAX, type Attempt, createAttempts } from "../../src/enclave/attempts.ts";
import type { FederatedRequestId } from "../../src/ids.ts";

/** An attempt of a requester that runs until the end of time. */
function running(requester: number, n: number): Attempt {
  return {
    verified: {
      requestId: `${requester}-${n}` as FederatedRequestId,
      request: { requester: new Uint8Array(32).fill(requester), keyring: null, expiresAtMs: Number.MAX_SAFE_INTEGER },
    } as Attempt["verified"],
    evidence: {} as Attempt["evidence"],
    attempt: 1,
    orderHash: new Uint8Array(32),
    machine: {
      step: () => ({ messages: [], outcome: null, sealed: null }),
      receive: () => Promise.reject(new Error("not here")),
      wipe: () => undefined,
    },
  };
}

test("accounts that fill an enclave keep nobody else out: the oldest of whoever holds most goes", () => {
  const attempts = createAttempts();
  const take = (requester: number, n: number): void => {
    const one = running(requester, n);
    attempts.makeRoom(one.verified.request, one.verified.requestId, 0);
    attempts.put(one);
  };
  const there = (requester: number, n: number) => attempts.get(`${requester}-${n}` as FederatedRequestId) !== undefined;
  const crowd = ATTEMPTS_MAX.all / ATTEMPTS_MAX.ofOne;
  for (let requester = 1; requester <= crowd; requester++)
    for (let n = 0; n < ATTEMPTS_MAX.ofOne; n++) take(requester, n);
  take(200, 0);
  expect([there(200, 0), there(1, 0), there(1, 1)]).toEqual([true, false, true]);
  // whoever holds as much as the others makes nobody give way
  expect(() => take(2, ATTEMPTS_MAX.ofOne)).toThrow("too many attempts");
});
