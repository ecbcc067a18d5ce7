import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { toBase64url } from "../../src/crypto/bytes.ts";
import { type EnclaveOperation, enclaveOperations } from "../../src/enclave/api.ts";
import { createCeremonyKeys } from "../../src/enclave/ceremonykeys.ts";
import type { EnclaveInput, EnclaveOutput } from "../../src/enclave/frames.ts";
import { openJournal } from "../../src/enclave/journal.ts";
import { openStored } from "../../src/enclave/storedvalue.ts";
import { Fault } from "../../src/errors.ts";
import { releaseBytes, verifyCeremonyKey } from "../../src/protocol/ceremony/records.ts";
import type { Codec, Json } from "../../src/wire/codec.ts";
import { codeOf, holds } from "../support/entropyfaults.ts";
import { type EntropyWorld, entropyWorld, OUTPUTS } from "../support/entropyworld.ts";
import { asker, newRecord } from "../support/storedworld.ts";

let world: EntropyWorld;
beforeEach(async () => {
  world = await entropyWorld();
});
afterEach(() => world.close());

describe("a key for ceremonies", () => {
  const opener = () =>
    createCeremonyKeys({
      keys: world.keys,
      journal: openJournal(world.journalPath, world.keys.journalKey),
      now: () => world.nowMs,
      random: (length) => world.random.bytes(length),
    });

  test("is stated by server and enclave, and opens to its two public halves", async () => {
    const { key } = world.key.statement;
    expect(verifyCeremonyKey(world.key.statement)).toEqual(key);
    expect(key).toMatchObject({
      server: world.server.publicKey,
      enclave: world.keys.signer.publicKey,
      number: 1,
      createdAtMs: world.nowMs,
    });
    const { hpke, rsa } = await opener().open(world.key);
    expect(hpke.publicKey).toEqual(key.sealing);
    expect(rsa.asymmetricKeyDetails?.modulusLength).toBe(3_072);
  });

  test("opens under its own statement and in its own enclave alone", async () => {
    const { statement, sealed } = world.key;
    const open = (change: object, bytes = sealed) =>
      codeOf(opener().open({ statement: { ...statement, key: { ...statement.key, ...change } }, sealed: bytes }));
    expect(await open({})).toBe("ok");
    expect(await open({ number: 2 })).toBe("integrity");
    expect(await open({ createdAtMs: 1 })).toBe("integrity");
    expect(await open({ server: new Uint8Array(32) })).toBe("integrity");
    expect(await open({ sealing: new Uint8Array(32) })).toBe("integrity");
    expect(await open({ enclave: new Uint8Array(32) })).toBe("integrity");
    const bit = sealed.slice();
    bit[100] = (bit[100] ?? 0) ^ 1;
    expect(await open({}, bit)).toBe("integrity");
  });

  test("stays open until it is forgotten", async () => {
    const keys = opener();
    const first = await keys.open(world.key);
    expect(await keys.open(world.key)).toBe(first);
    keys.clear();
    expect(await keys.open(world.key)).not.toBe(first);
  });
});

/** What an operation sends and answers, as text. */
const said: string[] = [];
async function tell<O extends EnclaveOperation>(name: O, input: EnclaveInput<O>): Promise<EnclaveOutput<O>> {
  const output = await world.enclave.handle(name, input);
  said.push(JSON.stringify((enclaveOperations[name].output as Codec<unknown>).encode(output)));
  return output;
}

test("no answer and no journal has an opening, a seed before its time, a private half or a value in clear", async () => {
  const { enclave } = world;
  const spy = { ...enclave, handle: (name: never, input: never) => tellAny(enclave.handle, name, input) };
  world.enclave = spy as never;
  try {
    const change = { output: OUTPUTS.totp, policy: { collect: "organiser", quorum: 0 } } as const;
    const run = await world.open({ n: 2, change });
    await run.join(1);
    await run.join(2);
    const early = said.join("\n");
    await run.freeze();
    const { seed } = run.state;
    await run.reveal(1);
    await run.reveal(2, { suite: "rsa-oaep" });
    const { stored } = await run.combine();
    if (!stored || !seed) throw new Error("nothing stored");
    const value = openStored(world.keys, stored);
    const who = await asker(world);
    world.enclave = enclave;
    const { sealed } = await tell("stored.code", { stored, counter: 5, ask: who.ask });
    await tell("stored.provision", { stored, counter: 5, ask: who.ask });
    const release = {
      keyId: stored.record.keyId,
      version: 1,
      ceremonyId: run.ceremonyId,
      index: 0,
      recipient: who.ask.recipient,
      nonce: new Uint8Array(32),
    };
    const signature = run.organiser.sign(releaseBytes(release));
    const { transcript } = run;
    await tell("stored.release", { stored, transcript, release: { release, signature }, approvals: [] });
    await tell("stored.send", { stored, to: world.key.statement, counter: 5 });
    const { value: code } = await who.open(sealed, stored.record);
    const all = `${said.join("\n")}\n${readFileSync(world.journalPath, "utf8")}`;
    const secrets = [...run.people.map(({ opening }) => opening), value, world.keys.storeKey, world.keys.ceremonyKey];
    // the search finds what is there
    expect(holds(all, seed)).toBe(true);
    expect(all.includes(toBase64url(stored.sealed))).toBe(true);
    expect(holds(early, seed)).toBe(false);
    for (const secret of [...secrets, world.keys.tagKey]) expect(holds(all, secret)).toBe(false);
    expect(all.includes(`"${code}"`)).toBe(false);
  } finally {
    world.enclave = enclave;
    said.length = 0;
  }
});

async function tellAny(handle: (name: never, input: never) => Promise<unknown>, name: never, input: never) {
  const output = await handle(name, input);
  said.push(JSON.stringify((enclaveOperations[name as EnclaveOperation].output as Codec<unknown>).encode(output)));
  return output;
}

/** Each way to change one leaf of a JSON value. */
function* bentJson(value: Json): Generator<Json> {
  if (Array.isArray(value)) {
    yield [];
    yield [...value, ...value];
    for (const [at, item] of value.entries()) {
      if (at > 1) break;
      for (const bent of bentJson(item)) yield value.with(at, bent);
    }
  } else if (value !== null && typeof value === "object") {
    for (const [name, item] of Object.entries(value))
      for (const bent of bentJson(item)) yield { ...value, [name]: bent };
  } else if (typeof value === "string") {
    yield "";
    yield `${value.slice(0, -1)}${value.endsWith("A") ? "E" : "A"}`;
    yield value.split("").reverse().join("");
  } else {
    yield 0;
    yield 1;
    yield Number.MAX_SAFE_INTEGER;
    yield null;
  }
}

describe("whatever is asked, what comes back is an answer or a Fault, and the enclave goes on", () => {
  const hostile = async <O extends EnclaveOperation>(name: O, input: EnclaveInput<O>) => {
    const codec = enclaveOperations[name].input as unknown as Codec<EnclaveInput<O>>;
    const codes = new Set<string>();
    for (const bent of bentJson(codec.encode(input))) {
      try {
        await world.enclave.handle(name, codec.decode(bent, ""));
        codes.add("ok");
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        codes.add(error.code);
      }
    }
    expect(codes).not.toContain("internal");
    expect(codes.size).toBeGreaterThan(1);
    expect(await codeOf(world.enclave.handle("info", {}))).toBe("ok");
  };

  test("in ceremonies", async () => {
    const run = await world.open({ n: 2 });
    await hostile("ceremony.open", {
      draft: run.draft,
      signature: run.transcript.manifest.manifest.organiserSignature,
    });
    await run.join(1);
    await run.join(2);
    const { transcript } = run;
    await hostile("ceremony.append", { transcript, step: { kind: "freeze", seed: run.seed } } as never);
    await run.freeze();
    await run.reveal(1);
    await run.reveal(2);
    const step = { kind: "combine", openings: run.openings, before: null };
    await hostile("ceremony.append", { transcript: run.transcript, step } as never);
  });

  test("of stored values", async () => {
    const run = await world.open({ n: 2, change: { policy: { collect: "organiser", quorum: 0 } } });
    const { stored } = await run.finish();
    if (!stored) throw new Error("nothing stored");
    const { ask } = await asker(world);
    await hostile("stored.code", { stored, counter: 1, ask });
    await hostile("stored.provision", { stored, counter: 1, ask });
    await hostile("stored.match", { stored, code: "123456", from: 0, span: 2 });
    const { transcript, ceremonyId } = run;
    const { keyId } = stored.record;
    const release = { keyId, version: 1, ceremonyId, index: 0, recipient: ask.recipient, nonce: new Uint8Array(32) };
    const signed = { release, signature: run.organiser.sign(releaseBytes(release)) };
    await hostile("stored.release", { stored, transcript, release: signed, approvals: [] });
    await hostile("stored.create", { record: newRecord(world, OUTPUTS.totp), value: null });
    // last: a key that has left gives nothing more
    await hostile("stored.send", { stored, to: world.key.statement, counter: 1 });
    const sent = await world.enclave.handle("stored.send", { stored, to: world.key.statement, counter: 1 });
    const { statement } = world.key;
    const parcel = { record: stored.record, from: statement, to: statement, ...sent };
    await hostile("stored.receive", { parcel, key: world.key, receiver: new Uint8Array(32) });
  });
});
