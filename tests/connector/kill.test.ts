import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { verifyResponse } from "../../src/protocol/keyring/response.ts";
import { eachStored, KEY } from "../../src/server/federation/documents.ts";
import { type ConnectorWorld, Crash, connectorWorld, type TestConnector } from "./world.ts";

setDefaultTimeout(240_000);

type Arm = (connector: TestConnector, fire: () => void) => void;

const STEPS = ["poll", "taken", "done", "kept", "report", "reported"] as const;
const CALLS = [
  "federation.policy",
  "federation.policy.set",
  "federation.submit",
  "federation.vote",
  "federation.begin",
  "federation.relay",
  "federation.decide",
  "federation.key",
] as const;

/** Crashes one connector once: the n-th time that something is reached. */
async function killed(arm: Arm, nth: number): Promise<boolean> {
  const world: ConnectorWorld = await connectorWorld();
  try {
    let count = 0;
    let fired = false;
    arm(world.connector(1), () => {
      count += 1;
      if (count === nth && !fired) {
        fired = true;
        throw new Crash("SIGKILL");
      }
    });
    const id = world.askKey();
    const responses = await world.settled(id);
    // one response of each party, and they agree
    expect(responses).toHaveLength(3);
    const keys = new Set(responses.map((one) => verifyResponse(one).keyId));
    expect(keys.size).toBe(1);
    for (const { index } of world.connectors) {
      const stored = await world.federation
        .party(index)
        .store.transaction((tx) => eachStored(tx, KEY, world.workspace.scope));
      expect(stored.map((one) => String(one.id))).toEqual([...keys].map(String));
    }
    const outbox = world.connector(1).outbox;
    expect(outbox.counts()).toMatchObject({ dead: 0 });
    return fired;
  } finally {
    await world.close();
  }
}

describe("killed once, anywhere: one key, one response of each party", () => {
  for (const step of STEPS) {
    test(`at ${step}`, async () => {
      let fired = 0;
      for (const nth of [1, 2, 4, 6]) {
        const arm: Arm = (connector, fire) => {
          connector.step = (name) => {
            if (name === step) fire();
          };
        };
        if (await killed(arm, nth)) fired += 1;
      }
      expect(fired).toBeGreaterThan(1);
    });
  }
  for (const call of CALLS) {
    test(`before and after ${call}`, async () => {
      // the first question about a policy is answered by a failure
      for (const side of call === "federation.policy" ? (["before"] as const) : (["before", "after"] as const)) {
        const arm: Arm = (connector, fire) => {
          connector[side] = (name) => {
            if (name === call) fire();
          };
        };
        expect(await killed(arm, 1)).toBe(true);
      }
    });
  }
});
