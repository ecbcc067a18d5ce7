import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import type { SignedEntry } from "../../../src/protocol/ceremony/model.ts";
import { ceremonyKeyBytes, entryHash, signEntry } from "../../../src/protocol/ceremony/records.ts";
import type { OutputOf } from "../../../src/wire/operations.ts";
import { random } from "../../support/harness.ts";
import { rejected } from "../../support/hostile.ts";
import {
  identityOf,
  joinWith,
  type Keeper,
  meddling,
  type Person,
  untilOver,
  type World,
  wish,
  world,
} from "./world.ts";

/* Servers that lie: what a vault makes of them. */

setDefaultTimeout(60_000);

let made: World;
let at: Keeper;
let organiser: Person;
let ann: Person;
let ben: Person;
let turn = 0;

beforeAll(async () => {
  made = world();
  at = await made.keeper();
  organiser = await made.account("keeper", at);
  [ann, ben] = [await made.local("ann"), await made.local("ben")];
});
afterEach(() => {
  at.middle = null;
});
afterAll(() => made.end());

type Get = OutputOf<"ceremony.get">;

async function opened(change: Parameters<typeof wish>[1] = {}) {
  const name = `run${++turn}`;
  const { info, invites } = await organiser.client.ceremonyOpen(wish(["ann", "ben"], { name, ...change }));
  const looked = { ceremony: info.ceremonyId };
  return { name, info, invites, looked };
}

const heldOf = ({ open }: Person, id: string) =>
  open.box.model.held.ceremonies.find(({ ceremonyId }) => ceremonyId === id);

/** The same story with other times, rightly signed. */
function retold(ceremonyId: string, entries: readonly SignedEntry[]): readonly SignedEntry[] {
  let previous: Uint8Array | null = null;
  return entries.map(({ entry }) => {
    const next = { ...entry, atMs: entry.atMs + 1, ...(previous && { previous }) };
    previous = entryHash(ceremonyId as never, next);
    return signEntry(at.enclave, ceremonyId as never, next);
  });
}

/** A process that has looked at nothing yet fetches every transcript from its beginning. */
const fresh = (who: Person): Person => who.again();

describe("what a server shows", () => {
  test("without this vault's commitment: the vault says who lies, and reveals nothing", async () => {
    const { info, invites, looked } = await opened({ minimum: 2 });
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await ben.client.ceremonyJoin(joinWith(invites[1]));
    at.middle = meddling("ceremony.get", (page: Get) => ({
      ...page,
      entries: page.entries.filter(({ entry }) => entry.body.kind !== "join" || entry.body.join.join.index !== 1),
    }));
    const fault = await rejected(fresh(ann).client.ceremonyAdvance(looked), "integrity");
    expect(fault.culprits).toEqual([at.url]);
    expect(heldOf(ann, info.ceremonyId)?.own?.reveal).toBeNull();
    at.middle = null;
    expect(await untilOver([ann, ben], info.ceremonyId)).toMatchObject({ status: "stored" });
  });

  test("cut short of what it has signed", async () => {
    const { invites, looked } = await opened();
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    at.middle = meddling("ceremony.get", (page: Get) => ({ ...page, entries: [], more: false }));
    const fault = await rejected(fresh(ann).client.ceremonyAdvance(looked), "integrity");
    expect(fault.message).toContain("record 1");
    // the acknowledgement in hand, a transcript without it
    const second = await opened();
    const lost = await rejected(ann.client.ceremonyJoin(joinWith(second.invites[0])), "integrity");
    expect(lost.culprits).toEqual([at.url]);
  });

  test("another commitment at a place that was seen, even signed by the enclave's own key", async () => {
    const { info, invites, looked } = await opened();
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await ben.client.ceremonyJoin(joinWith(invites[1]));
    await ann.client.ceremony(looked);
    const known = heldOf(ann, info.ceremonyId)?.seen;
    expect(known?.seq).toBeGreaterThanOrEqual(2);
    // every signature is the enclave's own, every rule is kept: only what was seen before tells
    at.middle = meddling("ceremony.get", (page: Get) => ({ ...page, entries: retold(info.ceremonyId, page.entries) }));
    const fault = await rejected(fresh(ann).client.ceremonyAdvance(looked), "integrity");
    expect(fault.message).toContain(`another record ${known?.seq}`);
    expect(fault.why).toContain("different people");
    expect(fault.culprits).toEqual([at.url]);
    // who comes for the first time cannot tell: the transcript holds
    expect(
      await made.local("zoe").then(({ client }) => client.ceremonyLook({ invite: invites[1]?.invite ?? "" })),
    ).toMatchObject({
      index: 2,
    });
  });

  test("another sum of the commitments, or a seed that it did not commit to", async () => {
    const { info, invites, looked } = await opened();
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await ben.client.ceremonyJoin(joinWith(invites[1]));
    for (const wrong of [{ t1: random(32) }, { seed: random(32) }]) {
      at.middle = meddling("ceremony.get", (page: Get) => ({
        ...page,
        entries: page.entries.map((one) =>
          one.entry.body.kind === "freeze"
            ? { ...one, entry: { ...one.entry, body: { ...one.entry.body, ...wrong } } }
            : one,
        ),
      }));
      const fault = await rejected(fresh(ann).client.ceremonyAdvance(looked), "integrity");
      expect(fault.why).toContain("freeze");
    }
    expect(heldOf(ann, info.ceremonyId)?.own?.reveal).toBeNull();
  });

  test("another ceremony than was asked for, or a manifest that was changed", async () => {
    const [one, other] = [await opened(), await opened()];
    at.middle = async (operation, body, forward) => {
      if (operation !== "ceremony.get") return forward(operation, body);
      const text = new TextDecoder().decode(body).replaceAll(one.info.ceremonyId, other.info.ceremonyId);
      return forward(operation, new TextEncoder().encode(text));
    };
    await rejected(ann.client.ceremonyLook({ invite: one.invites[0]?.invite ?? "" }), "integrity");
    at.middle = meddling("ceremony.get", ({ manifest, ...page }: Get) => ({
      ...page,
      manifest: { ...manifest, manifest: { ...manifest.manifest, seedHash: random(32) } },
    }));
    await rejected(ann.client.ceremonyLook({ invite: one.invites[0]?.invite ?? "" }), "integrity");
    expect(heldOf(ann, one.info.ceremonyId)).toBeUndefined();
  });

  test("an opened ceremony that is not what the organiser asked for", async () => {
    const held = organiser.open.box.model.held.ceremonies.length;
    const { session } = organiser.open;
    if (!session) throw new Error("no session");
    const lying: Person["open"] = {
      ...organiser.open,
      session: {
        ...session,
        away: () => false,
        async call(operation, input, requestId) {
          const answer = await session.call(operation, input, requestId);
          if (operation !== "ceremony.open") return answer;
          const { manifest } = answer.output as OutputOf<"ceremony.open">;
          const draft = { ...manifest.manifest.draft, purpose: "another one" };
          return {
            ...answer,
            output: { manifest: { ...manifest, manifest: { ...manifest.manifest, draft } } } as never,
          };
        },
      },
    };
    const { createCeremonyClient } = await import("../../../src/client/ceremony/index.ts");
    const { calls } = createCeremonyClient(lying, { url: at.url, pin: at.pin });
    await rejected(calls.ceremonyOpen(wish(["ann", "ben"], { name: "forged" })), "integrity");
    expect(organiser.open.box.model.held.ceremonies).toHaveLength(held);
  });

  test("under another pin there is no other server", async () => {
    const { invites } = await opened();
    const second = await made.keeper("two");
    const { decodeInvite, encodeInvite } = await import("../../../src/protocol/ceremony/invite.ts");
    const invite = decodeInvite(invites[0]?.invite ?? "");
    const astray = encodeInvite({ ...invite, pin: second.pin });
    await rejected(ann.client.ceremonyLook({ invite: astray }), "pin_mismatch");
    const elsewhere = encodeInvite({ ...invite, url: second.url, pin: second.pin });
    await rejected(ann.client.ceremonyLook({ invite: elsewhere }), "not_found");
    const strange = encodeInvite({ ...invite, seed: random(32) });
    await rejected(ann.client.ceremonyJoin({ ...joinWith(undefined), invite: strange }), "bad_input");
  });

  test("another key under the number that was seen before, and an old one as its newest", async () => {
    const { invites } = await opened();
    await ann.client.ceremonyLook({ invite: invites[0]?.invite ?? "" });
    const pins = ann.open.box.model.held.ceremonyKeyPins;
    expect(pins.filter(({ number }) => number === 1).length).toBeGreaterThan(0);
    const other = await made.keeper("three");
    const keeper = await made.account("keeper", other);
    await keeper.client.ceremonyOpen(wish(["a", "b"], { name: "first" }));
    // a key of its own making under the number of the first one, rightly signed
    const forge = ({ items, atMs }: OutputOf<"ceremony.keys">) => {
      const enclave = signerFromSeed(random(32));
      const [first] = items;
      if (!first) throw new Error("no key");
      const key = { ...first.key, enclave: enclave.publicKey };
      const bytes = ceremonyKeyBytes(key);
      return {
        items: [{ key, signature: identityOf(other).sign(bytes), enclaveSignature: enclave.sign(bytes) }],
        atMs,
      };
    };
    other.middle = meddling("ceremony.keys", forge);
    const fault = await rejected(keeper.client.ceremonyOpen(wish(["a", "b"], { name: "second" })), "integrity");
    expect(fault.message).toContain("number 1");
    expect(fault.culprits).toEqual([other.url]);
    other.middle = null;
    const before = await other.server.link().post("ceremony.keys", "application/json", "{}");
    await other.rotate();
    await keeper.client.ceremonyOpen(wish(["a", "b"], { name: "second" }));
    other.middle = async (operation, body, forward) =>
      operation === "ceremony.keys" ? (before as Awaited<ReturnType<typeof forward>>) : forward(operation, body);
    const old = await rejected(keeper.client.ceremonyOpen(wish(["a", "b"], { name: "third" })), "integrity");
    expect(old.message).toContain("old key");
  });

  test("a forged acknowledgement of a commitment and of a reveal", async () => {
    const { info, invites, looked } = await opened();
    const forged = ({ entry }: { entry: SignedEntry }) => ({
      entry: signEntry(signerFromSeed(random(32)), info.ceremonyId as never, entry.entry),
    });
    at.middle = meddling("ceremony.join", forged);
    await rejected(ann.client.ceremonyJoin(joinWith(invites[0])), "integrity");
    expect(heldOf(ann, info.ceremonyId)?.own?.joinedSeq).toBeNull();
    at.middle = null;
    // what was sent has arrived all the same: the transcript says so
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await ben.client.ceremonyJoin(joinWith(invites[1]));
    at.middle = meddling("ceremony.reveal", forged);
    await rejected(ann.client.ceremonyAdvance(looked), "integrity");
    expect(heldOf(ann, info.ceremonyId)?.own?.revealedSeq).toBeNull();
    at.middle = null;
    expect(await untilOver([ann, ben], info.ceremonyId)).toMatchObject({ status: "stored" });
  });

  test("a result with another key, and a value that is not the ceremony's", async () => {
    const { info, invites, looked, name } = await opened({ output: { kind: "secp256k1" } });
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await ben.client.ceremonyJoin(joinWith(invites[1]));
    await untilOver([ann, ben], info.ceremonyId);
    const wrong = (page: Get) => ({
      ...page,
      entries: page.entries.map((one) =>
        one.entry.body.kind === "result"
          ? { ...one, entry: { ...one.entry, body: { ...one.entry.body, keyHash: random(32) } } }
          : one,
      ),
    });
    at.middle = meddling("ceremony.get", wrong);
    await rejected(fresh(ann).client.ceremony(looked), "integrity");
    at.middle = meddling("ceremony.collect", (answer: OutputOf<"ceremony.collect">) => ({
      ...answer,
      sealed: answer.sealed && random(answer.sealed.length),
    }));
    const fault = await rejected(organiser.client.ceremonyCollect({ ceremony: name }), "integrity");
    expect(fault.culprits).toEqual([at.url]);
    at.middle = null;
    expect(await organiser.client.ceremonyCollect({ ceremony: name })).toMatchObject({ type: "secp256k1" });
  });

  test("a wallet in which this vault's key is not what its part makes", async () => {
    const output = { kind: "multisig", threshold: 2, network: "testnet" } as const;
    const { info, invites } = await opened({ output, policy: { collect: "nobody", quorum: 0 } });
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await ben.client.ceremonyJoin(joinWith(invites[1]));
    at.middle = meddling("ceremony.part", ({ sealed }: OutputOf<"ceremony.part">) => ({
      sealed: random(sealed.length),
    }));
    const fault = await rejected(untilOver([ann, ben], info.ceremonyId), "integrity");
    expect(fault.message).toContain("wallet");
  });

  test("an abort that calls this vault's true opening a lie", async () => {
    const { info, invites, looked } = await opened();
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await ben.client.ceremonyJoin(joinWith(invites[1]));
    at.middle = meddling("ceremony.reveal", ({ entry: { entry } }: { entry: SignedEntry }) => {
      if (entry.body.kind !== "reveal") throw new Error("no reveal");
      const { reveal } = entry.body;
      const body = { kind: "abort", reason: "lied", culprits: [reveal.reveal.index], reveal } as const;
      return { entry: signEntry(at.enclave, info.ceremonyId as never, { ...entry, body }) };
    });
    const fault = await rejected(ann.client.ceremonyAdvance(looked), "integrity");
    expect(fault.message).toContain("revealed something else");
    expect(fault.culprits).toEqual([at.url]);
  });

  test("an opening that was spoilt on its way: nothing comes of it, and it is sent again", async () => {
    const { info, invites, looked } = await opened();
    await ann.client.ceremonyJoin(joinWith(invites[0]));
    await ben.client.ceremonyJoin(joinWith(invites[1]));
    at.middle = async (operation, body, forward) => {
      if (operation !== "ceremony.reveal") return forward(operation, body);
      const sent = JSON.parse(new TextDecoder().decode(body)) as { sealed: string };
      const spoilt = Buffer.from(sent.sealed, "base64url");
      spoilt[40] = (spoilt[40] ?? 0) ^ 1;
      const changed = JSON.stringify({ ...sent, sealed: spoilt.toString("base64url") });
      return forward(operation, new TextEncoder().encode(changed));
    };
    await rejected(ann.client.ceremonyAdvance(looked), "integrity");
    at.middle = null;
    expect(await untilOver([ann, ben], info.ceremonyId)).toMatchObject({ status: "stored" });
  });
});
