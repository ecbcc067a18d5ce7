import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hpkeOpen } from "../../src/crypto/hpke.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { openStored } from "../../src/enclave/storedvalue.ts";
import { ceremonyKeyOf } from "../../src/protocol/ceremony/combine.ts";
import { CEREMONY_FUNCTIONS, type OutputSpec } from "../../src/protocol/ceremony/model.ts";
import { makeOutput, walletKeyOf } from "../../src/protocol/ceremony/output.ts";
import { revealBytes, storedKeyIdOf, walletPartInfo } from "../../src/protocol/ceremony/records.ts";
import { publicKeyOf } from "../../src/protocol/keygen.ts";
import { bodyOf, codeOf, withEntries } from "../support/entropyfaults.ts";
import {
  type EntropyWorld,
  entropyWorld,
  joinOf,
  OUTPUTS,
  people,
  person,
  type Run,
  revealOf,
  signDraft,
} from "../support/entropyworld.ts";

const HOUR = 3_600_000;
let world: EntropyWorld;
beforeEach(async () => {
  world = await entropyWorld();
});
afterEach(() => world.close());

/** K and the output, computed from what the participants know. */
async function recomputed(run: Run) {
  const { seed, t1, joins } = run.state;
  if (!seed || !t1) throw new Error("not frozen");
  const participants = run.people.filter(({ index }) => joins.some(({ join }) => join.index === index));
  const { ceremonyId, draft } = run;
  const made = await ceremonyKeyOf({ ceremonyId, purpose: draft.purpose, seed, t1, participants });
  return { ...made, output: await makeOutput(draft.output, made.key, { ceremonyId, joins }) };
}

describe("a whole ceremony", () => {
  for (const output of Object.values(OUTPUTS) as OutputSpec[]) {
    test(`makes ${output.kind} of everyone's openings, and of nothing else`, async () => {
      const run = await world.open({ n: 4, change: { output } });
      const { entry, stored, parts } = await run.finish();
      const result = bodyOf(entry, "result");
      const own = await recomputed(run);
      expect(result.t2).toEqual(own.t2);
      expect(result.keyHash).toEqual(own.keyHash);
      expect(result.output).toEqual(own.output.public);
      expect(run.state.status).toBe("stored");
      if (output.kind === "multisig") {
        expect([stored, result.stored, result.custody]).toEqual([null, null, "self-custodial"]);
        expect(parts.map(({ index }) => index)).toEqual([1, 2, 3, 4]);
        return;
      }
      expect([parts, result.custody]).toEqual([[], "custodial"]);
      if (!stored || !own.output.value) throw new Error("nothing stored");
      expect(openStored(world.keys, stored)).toEqual(own.output.value);
      const keyId = storedKeyIdOf(world.keys.signer.publicKey, Uint8Array.fromHex(run.ceremonyId));
      expect(result.stored).toEqual({ keyId, version: 1 });
      const { ceremonyId, draft } = run;
      expect(stored.record).toEqual({
        enclave: world.keys.signer.publicKey,
        keyId,
        version: 1,
        ceremonyId,
        name: draft.name,
        output,
        policy: draft.policy,
        createdAtMs: world.nowMs,
      });
    });
  }

  test("takes every function by HPKE and by RSA-OAEP, and both in one run", async () => {
    for (const name of CEREMONY_FUNCTIONS) {
      const who = (await people(world.random, 2)).map((one) => ({ ...one, function: name }));
      const run = await world.open({ people: who });
      await run.join(1);
      await run.join(2);
      await run.freeze();
      await run.reveal(2, { suite: "rsa-oaep" });
      await run.reveal(1, { suite: "hpke" });
      const { entry } = await run.combine();
      expect(bodyOf(entry, "result").keyHash).toEqual((await recomputed(run)).keyHash);
    }
  });

  test("of a wallet: each one opens its own part, and nobody else's", async () => {
    const run = await world.open({ n: 3, change: { output: OUTPUTS.multisig } });
    const { entry, parts } = await run.finish();
    const { keys } = bodyOf(entry, "result").output;
    for (const { index, sealed } of parts) {
      const who = run.person(index);
      const info = walletPartInfo(run.ceremonyId, index, who.sealing.publicKey);
      const own = walletKeyOf(who.scalar, await hpkeOpen(who.sealing, info, sealed));
      expect(publicKeyOf("secp256k1", own)).toEqual(keys.find((key) => key.index === index)?.publicKey ?? null);
      const other = run.person((index % 3) + 1);
      expect(await codeOf(hpkeOpen(other.sealing, info, sealed))).toBe("integrity");
    }
  });

  test("goes without those who stay away, once the minimum is there and time is over", async () => {
    const run = await world.open({ n: 4, change: { minimum: 2 } });
    await run.join(4);
    await run.join(2);
    world.nowMs += HOUR;
    await run.freeze();
    await run.reveal(2);
    await run.reveal(4);
    const { entry } = await run.combine();
    expect(bodyOf(entry, "result").keyHash).toEqual((await recomputed(run)).keyHash);
  });

  test("an account's seat is taken by a key, which then joins", async () => {
    const who = await people(world.random, 2);
    const [one, two] = who;
    if (!one || !two) throw new Error("nobody");
    const run = await world.open({
      people: who,
      change: {
        slots: [
          { index: 1, name: "one", invite: one.invite.publicKey, account: null },
          { index: 2, name: "two", invite: null, account: "two" },
        ],
      },
    });
    const early = run.ask({ kind: "join", join: joinOf(run.ceremonyId, two, "totp") });
    expect(await codeOf(early)).toBe("denied");
    expect(await codeOf(run.ask({ kind: "seat", index: 1, invite: two.invite.publicKey }))).toBe("denied");
    await run.append({ kind: "seat", index: 2, invite: two.invite.publicKey });
    await run.finish();
    expect(run.state.status).toBe("stored");
  });

  test("another version of a stored key keeps its id", async () => {
    const first = await world.open();
    const { stored } = await first.finish();
    const keyId = stored?.record.keyId ?? null;
    const second = await world.open({ organiser: first.organiser, change: { replaces: keyId } });
    await second.toCombine();
    expect(await codeOf(second.combine())).toBe("bad_input");
    const again = await second.combine(stored);
    expect([again.stored?.record.keyId, again.stored?.record.version]).toEqual([keyId ?? undefined, 2]);
    const third = await world.open();
    await third.toCombine();
    expect(await codeOf(third.combine(stored))).toBe("bad_input");
  });

  test("the clock put back: no entry is older than the one before", async () => {
    const run = await world.open();
    await run.join(1);
    world.nowMs -= 10 * HOUR;
    const { entry } = await run.join(2);
    expect(entry.atMs).toBe(run.transcript.entries[0]?.entry.atMs ?? -1);
  });
});

describe("a draft", () => {
  test("is refused with another's signature, another enclave's key, or what no ceremony can be", async () => {
    const run = await world.open();
    const { draft, organiser } = run;
    const open = (changed = draft, signer = organiser) =>
      codeOf(world.enclave.handle("ceremony.open", { draft: changed, signature: signDraft(signer, changed) }));
    expect(await open()).toBe("ok");
    expect(await open(draft, signerFromSeed(new Uint8Array(32)))).toBe("integrity");
    expect(await open({ ...draft, minimum: 1 })).toBe("bad_input");
    expect(await open({ ...draft, slots: draft.slots.slice(1) })).toBe("bad_input");
    const other = await entropyWorld(2);
    try {
      expect(await open({ ...draft, key: other.key.statement })).toBe("bad_input");
      const forged = { ...world.key.statement, enclaveSignature: other.key.statement.enclaveSignature };
      expect(await open({ ...draft, key: forged })).toBe("integrity");
    } finally {
      other.close();
    }
  });

  test("has another seed each time", async () => {
    const { draft, organiser } = await world.open();
    const signature = signDraft(organiser, draft);
    const [one, two] = [
      await world.enclave.handle("ceremony.open", { draft, signature }),
      await world.enclave.handle("ceremony.open", { draft, signature }),
    ];
    expect(one.manifest.manifest.seedHash).not.toEqual(two.manifest.manifest.seedHash);
  });
});

describe("a reveal", () => {
  let run: Run;
  beforeEach(async () => {
    run = await world.open();
    for (const index of [1, 2, 3]) await run.join(index);
    await run.freeze();
  });
  const t1 = () => run.state.t1 ?? new Uint8Array(32);
  const made = (index: number, change: Parameters<typeof revealOf>[5] = {}) =>
    revealOf(run.ceremonyId, run.person(index), t1(), run.draft.key, world.random, change);

  for (const suite of ["hpke", "rsa-oaep"] as const) {
    test(`of something else than was committed to ends the ceremony and names the liar (${suite})`, async () => {
      await run.reveal(1);
      const reveal = await run.reveal(2, { suite, opening: world.random.bytes(32) });
      expect(bodyOf(reveal, "abort")).toMatchObject({ reason: "lied", culprits: [2] });
      expect(run.state.status).toBe("aborted");
      expect(bodyOf(reveal, "abort").reveal?.reveal.index).toBe(2);
    });

    test(`that does not open is a lie too (${suite})`, async () => {
      const sealed = (await made(3, { suite })).sealed.slice();
      sealed[50] = (sealed[50] ?? 0) ^ 1;
      const entry = await run.reveal(3, { suite, sealed });
      expect(bodyOf(entry, "abort")).toMatchObject({ reason: "lied", culprits: [3] });
    });

    test(`of an opening of another length is a lie (${suite})`, async () => {
      const entry = await run.reveal(3, { suite, opening: world.random.bytes(31) });
      expect(bodyOf(entry, "abort")).toMatchObject({ reason: "lied", culprits: [3] });
    });
  }

  test("whose signature does not hold ends nothing: nobody is blamed for what was not signed", async () => {
    const one = await made(1, { opening: world.random.bytes(32) });
    const forged = { ...one.reveal, signature: run.person(2).signer.sign(revealBytes(one.reveal.reveal)) };
    expect(await codeOf(run.ask({ kind: "reveal", ...one, reveal: forged, key: world.key }))).toBe("integrity");
    await run.finish();
    expect(run.state.status).toBe("stored");
  });

  test("with other sealed bytes than were signed, under another key or number, ends nothing", async () => {
    const one = await made(1);
    const two = await made(1, { opening: world.random.bytes(32) });
    const ask = (step: object) => codeOf(run.ask({ kind: "reveal", ...one, key: world.key, ...step } as never));
    expect(await ask({ sealed: two.sealed })).toBe("integrity");
    const newer = await world.makeKey(1);
    expect(await ask({ key: newer })).toBe("bad_input");
    const { key } = world.key.statement;
    expect(
      await ask({ key: { ...world.key, statement: { ...world.key.statement, key: { ...key, number: 2 } } } }),
    ).toBe("bad_input");
    expect(await ask({})).toBe("ok");
  });

  test("of a key whose sealed halves are another's ends nothing", async () => {
    // an enclave that has not opened the key yet
    world.restart();
    const one = await made(1);
    const other = await world.makeKey(2);
    const key = { statement: world.key.statement, sealed: other.sealed };
    expect(await codeOf(run.ask({ kind: "reveal", ...one, key }))).toBe("integrity");
    expect(await codeOf(run.ask({ kind: "reveal", ...one, key: world.key }))).toBe("ok");
  });

  test("of nobody, twice, too late, for another T1, or before the freeze is refused", async () => {
    const stranger = await person(world.random, 4);
    const strange = await revealOf(run.ceremonyId, stranger, t1(), run.draft.key, world.random);
    expect(await codeOf(run.ask({ kind: "reveal", ...strange, key: world.key }))).toBe("denied");
    const otherT1 = await revealOf(run.ceremonyId, run.person(1), new Uint8Array(32), run.draft.key, world.random);
    expect(await codeOf(run.ask({ kind: "reveal", ...otherT1, key: world.key }))).toBe("bad_input");
    const one = await made(1);
    await run.append({ kind: "reveal", ...one, key: world.key });
    expect(await codeOf(run.ask({ kind: "reveal", ...one, key: world.key }))).toBe("conflict");
    const two = await made(2);
    const before = withEntries(run.transcript, run.transcript.entries.slice(0, 3));
    expect(await codeOf(run.ask({ kind: "reveal", ...two, key: world.key }, before))).toBe("conflict");
    world.nowMs += HOUR;
    expect(await codeOf(run.ask({ kind: "reveal", ...two, key: world.key }))).toBe("stale");
    const entry = await run.abort("withheld");
    expect(bodyOf(entry, "abort")).toMatchObject({ reason: "withheld", culprits: [2, 3] });
  });
});

describe("combining", () => {
  test("needs everyone's reveal, and the very bytes that were revealed, in that order", async () => {
    const run = await world.open();
    for (const index of [1, 2, 3]) await run.join(index);
    await run.freeze();
    await run.reveal(1);
    await run.reveal(2);
    expect(await codeOf(run.combine())).toBe("conflict");
    await run.reveal(3);
    const [a, b, c] = run.openings;
    if (!a || !b || !c) throw new Error("no openings");
    const combine = (openings: Run["openings"]) => codeOf(run.ask({ kind: "combine", openings, before: null }));
    expect(await combine([a, b])).toBe("bad_input");
    expect(await combine([a, c, b])).toBe("integrity");
    expect(await combine([a, b, { ...c, sealed: b.sealed }])).toBe("integrity");
    expect(await combine([a, b, c, c])).toBe("bad_input");
    expect(await combine([a, b, c])).toBe("ok");
  });

  test("openings that were damaged make nothing; the server may then end it as failed", async () => {
    const run = await world.open({ n: 2 });
    await run.toCombine();
    const broken = run.openings.map((opening) => ({ ...opening, sealed: opening.sealed.slice(1) }));
    expect(await codeOf(run.ask({ kind: "combine", openings: broken, before: null }))).toBe("integrity");
    const entry = await run.abort("failed");
    expect(bodyOf(entry, "abort")).toMatchObject({ reason: "failed", culprits: [] });
    expect(run.state.status).toBe("aborted");
  });
});
