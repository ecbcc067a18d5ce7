import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { ed25519 } from "@noble/curves/ed25519.js";
import { checkFederation } from "../../src/client/federation/checking.ts";
import { generateKey, goOnMaking } from "../../src/client/federation/generate.ts";
import { joinedFederation } from "../../src/client/federation/keeping.ts";
import { deliverOwed } from "../../src/client/federation/pending.ts";
import { goOnResharing, reshareKey } from "../../src/client/federation/reshare.ts";
import { goOnUsing, signWithKey } from "../../src/client/federation/use.ts";
import type { FederatedResult } from "../../src/client/federationapi.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedKeyId } from "../../src/ids.ts";
import { certificateHash } from "../../src/protocol/federation/certificate.ts";
import type { Round, SignedMessage } from "../../src/protocol/federation/message.ts";
import { type Owner, openOwner } from "./federationowner.ts";
import { type Fleet, localHome, openFleet } from "./fleet.ts";
import { SETUP_MS } from "./world.ts";

/**
 * Server processes that are killed right after they have spoken in a round, of every round: afterwards one certificate
 * on all of them, and everything can be finished (docs/protocol.md §8.3).
 */

setDefaultTimeout(SETUP_MS);

const MESSAGE = new TextEncoder().encode("pay 3 coins to the harbour master");

let fleet: Fleet;
let inside: Owner;

beforeAll(async () => {
  fleet = await openFleet(3);
  await fleet.form(await localHome(fleet.world, "drafter"), "custody", 2);
  inside = await openOwner(fleet, "custody", "canary vault password");
}, SETUP_MS);
afterAll(async () => {
  await inside.end();
  await fleet.close();
});

const down = new Set<number>();
async function kill(index: number): Promise<void> {
  await fleet.kill(index);
  down.add(index);
}
/** Starts a server that does not run. */
async function start(index: number): Promise<void> {
  if (down.delete(index)) await fleet.start(index);
}

const verifies = (publicKeyHex: string, signatureHex: unknown): boolean =>
  ed25519.verify(Uint8Array.fromHex(String(signatureHex)), MESSAGE, Uint8Array.fromHex(publicKeyHex));

/** Where a server dies: after it has spoken in a round, or before it hears the decision. */
type Death = Round | "decide";
const CEREMONY: readonly Death[] = ["commit", "echo", "share", "complaint", "confirm", "decide"];

/** Kills a server there, once; `again` starts it at once, so that it comes back into what goes on. */
function dying(victim: number, at: Death, again: boolean): { readonly died: () => boolean } {
  let dead = false;
  inside.seen = async (index, operation, _input, output) => {
    if (index !== victim || dead) return;
    const said = (output as { messages?: readonly SignedMessage[] } | undefined)?.messages ?? [];
    const now =
      at === "decide"
        ? operation === "federation.decide" && output === undefined
        : said.some(({ message }) => message.from === victim && message.payload.round === at);
    if (!now) return;
    dead = true;
    await kill(victim);
    if (again) await start(victim);
  };
  return { died: () => dead };
}

/** Brings a request to its end, however often it takes. */
async function finished(run: () => Promise<FederatedResult>): Promise<FederatedResult> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof Fault) || error.code === "integrity") throw error;
  } finally {
    inside.seen = () => undefined;
  }
  for (const index of [...down]) if (index !== 1) await start(index);
  const held = inside.ground.keeping.requests().find(({ decision }) => decision === null);
  if (!held) throw new Error("nothing is left of the request");
  const { kind } = held.request.request.body;
  if (kind === "reshare") return goOnResharing(inside.ground, held);
  return kind === "generate" ? goOnMaking(inside.ground, held) : goOnUsing(inside.ground, held);
}

/** Every server's newest certificate of a key, as a hash; null where it knows none. */
async function certificatesOf(keyId: FederatedKeyId): Promise<(string | null)[]> {
  const answers = await inside.members.callAll("federation.key", () => ({ keyId }));
  return answers.map((one) => (one.ok ? certificateHash(one.value.certificate.certificate).toHex() : null));
}

/** What is left to be told or repaired: afterwards all servers have the one certificate and a live share. */
async function whole(name: string): Promise<void> {
  const { ground, members, open } = inside;
  const federation = joinedFederation(open, "custody");
  await deliverOwed(ground);
  const { keyId } = inside.key(name);
  const known = new Set((await certificatesOf(keyId)).filter((one) => one !== null));
  expect(known.size).toBe(1);
  const before = await checkFederation(open, federation, () => members);
  const row = before.keys.find((one) => one.keyId === keyId);
  expect(row?.live.length).toBeGreaterThanOrEqual(2);
  if (row?.proposal) {
    const done = await reshareKey(ground, inside.key(name), { mode: "repair", threshold: null, holders: null });
    expect(done.status).toBe("fulfilled");
  }
  const after = await checkFederation(open, federation, () => members);
  expect(after.keys.find((one) => one.keyId === keyId)).toMatchObject({ live: [1, 2, 3], proposal: null });
  const mine = certificateHash(inside.key(name).certificate.certificate).toHex();
  expect(await certificatesOf(keyId)).toEqual([mine, mine, mine]);
  const signed = await signWithKey(ground, inside.key(name), MESSAGE, null);
  expect(verifies(inside.key(name).certificate.certificate.publicKey.toHex(), signed.signatureHex)).toBe(true);
}

describe("kill -9 of a server", () => {
  for (const [i, at] of CEREMONY.entries()) {
    const again = i % 2 === 0;
    test(`after its ${at}${again ? ", back at once" : ""}: one certificate, and everything goes on`, async () => {
      const name = `killed-${at}`;
      const generating = dying(3, at, again);
      const wish = { name, type: "ed25519", custody: "delegated", control: "unilateral", policy: null } as const;
      const made = await finished(() => generateKey(inside.ground, { ...wish, bytes: 32 }));
      expect(generating.died()).toBe(true);
      expect(["fulfilled", "degraded"]).toContain(made.status);
      await start(3);
      await whole(name);

      // the first two of the holders deal
      const resharing = dying(2, at, !again);
      const { publicKey } = inside.key(name).certificate.certificate;
      const input = { mode: "reshare", threshold: null, holders: [1, 2, 3] } as const;
      const anew = await finished(() => reshareKey(inside.ground, inside.key(name), input));
      expect(resharing.died()).toBe(true);
      expect(["fulfilled", "degraded"]).toContain(anew.status);
      await start(2);
      await whole(name);
      expect(inside.key(name).certificate.certificate.publicKey).toEqual(publicKey);
    });
  }

  for (const [at, again] of [
    ["nonces", true],
    ["nonces", false],
    ["partial", false],
  ] as const) {
    test(`after its ${at} of a signature${again ? ", back at once" : ""}`, async () => {
      const name = "killed-commit";
      // with server 1 away it takes the third
      await kill(1);
      const signing = dying(3, at, again);
      const signed = await finished(() => signWithKey(inside.ground, inside.key(name), MESSAGE, null));
      expect(signing.died()).toBe(true);
      const { publicKey } = inside.key(name).certificate.certificate;
      expect(verifies(publicKey.toHex(), signed.signatureHex)).toBe(true);
      for (const index of [1, 3]) await start(index);
      await whole(name);
    });
  }
});
