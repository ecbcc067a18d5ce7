import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hpkeSeal } from "../../src/crypto/hpke.ts";
import { openStored, type Stored, sealStored } from "../../src/enclave/storedvalue.ts";
import { broughtInfo, movedKeyIdOf } from "../../src/protocol/ceremony/records.ts";
import { base32Key, otpCode, parseOtpUri } from "../../src/protocol/otp.ts";
import { parcelBytes } from "../../src/protocol/otphandout.ts";
import { codeOf } from "../support/entropyfaults.ts";
import { type EntropyWorld, entropyWorld, OUTPUTS } from "../support/entropyworld.ts";
import { asker, drawn, newRecord } from "../support/storedworld.ts";

let world: EntropyWorld;
beforeEach(async () => {
  world = await entropyWorld();
});
afterEach(() => world.close());

const code = async (stored: Stored, counter: number) => {
  const who = await asker(world);
  const { sealed, tag } = await world.enclave.handle("stored.code", { stored, counter, ask: who.ask });
  return { ...(await who.open(sealed, stored.record)), tag };
};
const match = (stored: Stored, text: string, from: number, span: number) =>
  world.enclave.handle("stored.match", { stored, code: text, from, span });

/** The key of RFC 4226 and, for each hash, of RFC 6238. */
const RFC_SECRET = new TextEncoder().encode("1234567890".repeat(7));
const planted = (output: Parameters<typeof newRecord>[1], bytes: number) =>
  sealStored(world.keys, newRecord(world, output), RFC_SECRET.slice(0, bytes), (n) => world.random.bytes(n));

describe("codes", () => {
  test("are those of RFC 4226, Appendix D", async () => {
    const stored = planted(OUTPUTS.hotp, 20);
    const expected = "755224 287082 359152 969429 338314 254676 287922 162583 399871 520489".split(" ");
    for (const [counter, value] of expected.entries()) {
      expect(await code(stored, counter)).toMatchObject({ value, fromMs: null, untilMs: null });
    }
  });

  test("of a totp are those of its step: RFC 6238, Appendix B", async () => {
    const at = 1_111_111_109;
    const rows = [
      ["SHA1", 20, "07081804"],
      ["SHA256", 32, "68084774"],
      ["SHA512", 64, "25091201"],
    ] as const;
    for (const [algorithm, bytes, value] of rows) {
      const stored = planted({ ...OUTPUTS.totp, algorithm, digits: 8 }, bytes);
      const step = Math.floor(at / 30);
      const window = { fromMs: step * 30_000, untilMs: (step + 1) * 30_000 };
      expect(await code(stored, step)).toMatchObject({ value, ...window });
    }
  });

  test("have a tag by key, version and code, which no other has", async () => {
    const stored = planted(OUTPUTS.hotp, 20);
    const one = await code(stored, 1);
    expect(one.tag.length).toBe(16);
    expect((await code(stored, 1)).tag).toEqual(one.tag);
    expect((await match(stored, one.value, 0, 0)).tag).toEqual(one.tag);
    expect((await code(stored, 2)).tag).not.toEqual(one.tag);
    const newer = sealStored(world.keys, { ...stored.record, version: 2 }, RFC_SECRET.slice(0, 20), (n) =>
      world.random.bytes(n),
    );
    const others = [planted(OUTPUTS.hotp, 20), newer];
    for (const other of others) expect((await code(other, 1)).tag).not.toEqual(one.tag);
  });

  test("are found again in a span, and only in it", async () => {
    const stored = planted(OUTPUTS.hotp, 20);
    const { value, tag } = await code(stored, 7);
    expect(await match(stored, value, 0, 10)).toEqual({ tag, counter: 7 });
    expect(await match(stored, value, 7, 1)).toEqual({ tag, counter: 7 });
    expect(await match(stored, value, 0, 7)).toEqual({ tag, counter: null });
    expect(await match(stored, value, 8, 50)).toEqual({ tag, counter: null });
    expect(await match(stored, value, 7, 0)).toEqual({ tag, counter: null });
    expect((await match(stored, `0${value}`, 0, 10)).counter).toBe(null);
  });

  test("beyond what can be counted are refused", async () => {
    const who = await asker(world);
    const max = Number.MAX_SAFE_INTEGER;
    const totp = planted(OUTPUTS.totp, 20);
    const ask = (stored: Stored, counter: number) =>
      codeOf(world.enclave.handle("stored.code", { stored, counter, ask: who.ask }));
    expect(await ask(totp, max)).toBe("bad_input");
    expect(await ask(planted(OUTPUTS.hotp, 20), max)).toBe("ok");
    expect(await codeOf(match(totp, "123456", max, 10))).toBe("bad_input");
  });

  test("are sealed to the ask: no other ask, want or record opens them, and a bad recipient is refused", async () => {
    const stored = planted(OUTPUTS.hotp, 20);
    const who = await asker(world);
    const { sealed } = await world.enclave.handle("stored.code", { stored, counter: 1, ask: who.ask });
    const other = await asker(world);
    expect(await codeOf(other.open(sealed, stored.record))).toBe("integrity");
    expect(await codeOf(who.open(sealed, stored.record, "provision"))).toBe("integrity");
    expect(await codeOf(who.open(sealed, { ...stored.record, version: 2 }))).toBe("integrity");
    const ask = { ...who.ask, recipient: new Uint8Array(32) };
    expect(await codeOf(world.enclave.handle("stored.code", { stored, counter: 1, ask }))).toBe("bad_input");
  });
});

describe("a stored value", () => {
  test("opens beside its own record alone, and in its own enclave", async () => {
    const stored = await drawn(world, OUTPUTS.totp);
    const { record } = stored;
    const other = await drawn(world, OUTPUTS.totp);
    const bit = stored.sealed.slice();
    bit[30] = (bit[30] ?? 0) ^ 1;
    const changed: Stored[] = [
      { record, sealed: other.sealed },
      { record, sealed: bit },
      { record: { ...record, version: 2 }, sealed: stored.sealed },
      { record: { ...record, keyId: other.record.keyId }, sealed: stored.sealed },
      { record: { ...record, name: "other" }, sealed: stored.sealed },
      { record: { ...record, policy: { collect: "organiser", quorum: 0 } }, sealed: stored.sealed },
      { record: { ...record, output: OUTPUTS.hotp }, sealed: stored.sealed },
      { record: { ...record, createdAtMs: record.createdAtMs + 1 }, sealed: stored.sealed },
      { record: { ...record, ceremonyId: other.record.keyId as never }, sealed: stored.sealed },
    ];
    for (const one of changed) expect(await codeOf(code(one, 1))).toBe("integrity");
    const foreign = await entropyWorld(2);
    try {
      const who = await asker(world);
      const ask = foreign.enclave.handle("stored.code", { stored, counter: 1, ask: who.ask });
      expect(await codeOf(ask)).toBe("integrity");
    } finally {
      foreign.close();
    }
  });

  test("that is no one-time password gives no codes, no provisioning and no parcel", async () => {
    for (const output of [OUTPUTS.bytes, OUTPUTS.ed25519, OUTPUTS.bip39, OUTPUTS.hedge]) {
      const stored = sealStored(world.keys, newRecord(world, output), new Uint8Array(32), (n) => world.random.bytes(n));
      const { ask } = await asker(world);
      const counted = { stored, counter: 0, ask };
      expect(await codeOf(world.enclave.handle("stored.code", counted))).toBe("denied");
      expect(await codeOf(world.enclave.handle("stored.provision", counted))).toBe("denied");
      expect(await codeOf(match(stored, "123456", 0, 1))).toBe("denied");
      const to = world.key.statement;
      expect(await codeOf(world.enclave.handle("stored.send", { stored, to, counter: 0 }))).toBe("denied");
    }
  });
});

describe("a one-time password without a ceremony", () => {
  test("is drawn with as many bytes as its hash gives, each another", async () => {
    for (const [algorithm, bytes] of [
      ["SHA1", 20],
      ["SHA256", 32],
      ["SHA512", 64],
    ] as const) {
      const [one, two] = [
        await drawn(world, { ...OUTPUTS.totp, algorithm }),
        await drawn(world, { ...OUTPUTS.totp, algorithm }),
      ];
      expect(openStored(world.keys, one).length).toBe(bytes);
      expect(openStored(world.keys, one)).not.toEqual(openStored(world.keys, two));
    }
  });

  test("is brought by its owner, sealed to the key for ceremonies", async () => {
    const nonce = world.random.bytes(32);
    const secret = base32Key("JBSWY3DPEHPK3PXP");
    const record = newRecord(world, OUTPUTS.totp, {}, nonce);
    const { key } = world.key.statement;
    const seal = (info: Uint8Array, plain = secret) =>
      hpkeSeal(key.sealing, info, plain, (length) => world.random.bytes(length));
    const info = broughtInfo(key, record.name, record.output, nonce);
    const create = (sealed: Uint8Array, change: object = {}, given: object = {}) =>
      world.enclave.handle("stored.create", {
        record: { ...record, ...change },
        value: { sealed, key: world.key, nonce, ...given },
      });
    const sealed = await seal(info);
    const { stored } = await create(sealed);
    expect(openStored(world.keys, stored)).toEqual(secret);
    expect(await codeOf(create(sealed, { name: "other" }))).toBe("integrity");
    expect(await codeOf(create(sealed, { output: OUTPUTS.hotp }))).toBe("integrity");
    expect(await codeOf(create(sealed, {}, { nonce: world.random.bytes(32) }))).toBe("bad_input");
    expect(await codeOf(create(await seal(info, new Uint8Array(0))))).toBe("bad_input");
    expect(await codeOf(create(await seal(info, new Uint8Array(1_025))))).toBe("bad_input");
  });

  test("is the first version of a key of this enclave, without a ceremony", async () => {
    const create = (change: object) =>
      codeOf(
        world.enclave.handle("stored.create", {
          record: { ...newRecord(world, OUTPUTS.totp), ...change },
          value: null,
        }),
      );
    expect(await create({})).toBe("ok");
    expect(await create({ version: 2 })).toBe("bad_input");
    expect(await create({ enclave: new Uint8Array(32) })).toBe("bad_input");
    expect(await create({ ceremonyId: "ab".repeat(32) })).toBe("bad_input");
    expect(await create({ output: OUTPUTS.bytes })).toBe("denied");
    expect(await create({ output: { ...OUTPUTS.totp, digits: 5 } })).toBe("bad_input");
  });
});

describe("provisioning", () => {
  test("gives the whole URI, of a hotp with the counter that comes next", async () => {
    for (const output of [OUTPUTS.totp, OUTPUTS.hotp]) {
      const stored = await drawn(world, output);
      const who = await asker(world);
      const { sealed } = await world.enclave.handle("stored.provision", { stored, counter: 41, ask: who.ask });
      const text = await who.open(sealed, stored.record, "provision");
      expect([text.fromMs, text.untilMs]).toEqual([null, null]);
      const key = parseOtpUri(text.value);
      expect(key).toMatchObject({ kind: output.kind, issuer: "Example", label: "everyone", digits: 6 });
      expect(key.secret).toEqual(openStored(world.keys, stored));
      expect(key.counter).toBe(output.kind === "hotp" ? 41 : 0);
      const own = otpCode({ ...key, kind: "hotp", counter: 41 }, 0).code;
      expect((await code(stored, 41)).value).toBe(own);
    }
  });

  test("is refused where participants must agree before the value leaves", async () => {
    const policy = { collect: "organiser", quorum: 1 } as const;
    const record = newRecord(world, OUTPUTS.totp, { policy });
    const stored = sealStored(world.keys, record, new Uint8Array(20), (n) => world.random.bytes(n));
    const { ask } = await asker(world);
    expect(await codeOf(world.enclave.handle("stored.provision", { stored, counter: 0, ask }))).toBe("denied");
    const to = world.key.statement;
    expect(await codeOf(world.enclave.handle("stored.send", { stored, to, counter: 0 }))).toBe("denied");
    expect(await codeOf(world.enclave.handle("stored.code", { stored, counter: 0, ask }))).toBe("ok");
  });
});

describe("a key that moves to another store", () => {
  let other: EntropyWorld;
  let stored: Stored;
  beforeEach(async () => {
    other = await entropyWorld(2);
    stored = await drawn(world, OUTPUTS.hotp);
  });
  afterEach(() => other.close());
  const parcel = async (to = other.key.statement, counter = 12) => {
    const sent = await world.enclave.handle("stored.send", { stored, to, counter });
    return { record: stored.record, from: world.key.statement, to, ...sent };
  };
  const account = new Uint8Array(32).fill(1);
  const receive = (given: Awaited<ReturnType<typeof parcel>>, at = other, receiver = account) =>
    at.enclave.handle("stored.receive", { parcel: given, key: at.key, receiver });

  test("is received by one account for good: again by the same, restart or not, by no other", async () => {
    const [one, two] = [await parcel(), await parcel()];
    const stranger = new Uint8Array(32).fill(2);
    const { record } = (await receive(one)).stored;
    for (const restart of [() => undefined, () => other.restart()]) {
      restart();
      for (const given of [one, two]) {
        expect(await codeOf(receive(given, other, stranger))).toBe("conflict");
        expect((await receive(given)).stored.record).toEqual(record);
      }
    }
    // what is refused is nobody's
    const broken = { ...(await parcel()), signature: new Uint8Array(64) };
    stored = await drawn(world, OUTPUTS.hotp);
    expect(await codeOf(receive(broken, other, stranger))).toBe("integrity");
    expect(await codeOf(receive(await parcel()))).toBe("ok");
  });

  test("keeps its codes, and is a new key there, whose id is of what its sender signed", async () => {
    const { value } = await code(stored, 12);
    const moved = (await receive(await parcel())).stored;
    const enclave = other.keys.signer.publicKey;
    const keyId = movedKeyIdOf(enclave, stored.record);
    expect(moved.record).toEqual({ ...stored.record, enclave, keyId, version: 1 });
    expect(openStored(other.keys, moved)).toEqual(openStored(world.keys, stored));
    expect(
      (await other.enclave.handle("stored.match", { stored: moved, code: value, from: 12, span: 1 })).counter,
    ).toBe(12);
  });

  test("and back again, or on", async () => {
    const moved = (await receive(await parcel())).stored;
    const to = world.key.statement;
    const sent = await other.enclave.handle("stored.send", { stored: moved, to, counter: 13 });
    const back = { record: moved.record, from: other.key.statement, to, ...sent };
    const own = (await receive(back, world)).stored;
    const { enclave } = stored.record;
    expect(own.record).toEqual({ ...stored.record, keyId: movedKeyIdOf(enclave, moved.record) });
    expect(openStored(world.keys, own)).toEqual(openStored(world.keys, stored));
  });

  test("is not received from another parcel than was sent, nor by another store", async () => {
    const whole = await parcel();
    const again = await parcel();
    const third = await entropyWorld(3);
    try {
      const changes: Partial<typeof whole>[] = [
        { counter: 11 },
        { record: { ...whole.record, name: "other" } },
        { record: { ...whole.record, version: 2 } },
        { record: { ...whole.record, policy: { collect: "organiser", quorum: 0 } } },
        { sealed: again.sealed },
        { signature: again.signature },
        { from: third.key.statement },
        { to: third.key.statement },
        { from: { ...whole.from, enclaveSignature: new Uint8Array(64) } },
        { from: { ...whole.from, signature: new Uint8Array(64) } },
        { to: { ...whole.to, signature: new Uint8Array(64) } },
        { record: { ...whole.record, enclave: third.keys.signer.publicKey }, from: third.key.statement },
      ];
      for (const change of changes) expect(await codeOf(receive({ ...whole, ...change }))).toBe("integrity");
      expect(await codeOf(receive(whole, third))).toBe("integrity");
      // well signed, by another enclave than the record names
      const { record, to, counter, sealed } = whole;
      const signature = third.keys.signer.sign(parcelBytes(record, to.key, counter, sealed));
      expect(await codeOf(receive({ ...whole, from: third.key.statement, signature }))).toBe("integrity");
      expect(await codeOf(receive({ ...whole, record: { ...whole.record, output: OUTPUTS.bytes } }))).toBe("denied");
      expect(await codeOf(receive(whole))).toBe("ok");
    } finally {
      third.close();
    }
  });

  test("gives no code, no check, no URI and no parcel to others here any more, restart or not", async () => {
    const third = await entropyWorld(3);
    try {
      await parcel();
      const { ask } = await asker(world);
      const again = async () => [
        await codeOf(world.enclave.handle("stored.code", { stored, counter: 1, ask })),
        await codeOf(match(stored, "123456", 0, 10)),
        await codeOf(world.enclave.handle("stored.provision", { stored, counter: 1, ask })),
        await codeOf(parcel(third.key.statement)),
      ];
      expect(await again()).toEqual(["denied", "conflict", "denied", "conflict"]);
      world.restart();
      expect(await again()).toEqual(["denied", "conflict", "denied", "conflict"]);
      expect(
        await codeOf(
          world.enclave.handle("stored.code", { stored: await drawn(world, OUTPUTS.hotp), counter: 1, ask }),
        ),
      ).toBe("ok");
    } finally {
      third.close();
    }
  });

  test("is sealed anew to its new server alone, never with a lower counter than before", async () => {
    expect((await parcel(undefined, 12)).counter).toBe(12);
    const lower = await parcel(undefined, 5);
    expect(lower.counter).toBe(12);
    expect((await parcel(undefined, 20)).counter).toBe(20);
    world.restart();
    expect((await parcel(undefined, 12)).counter).toBe(20);
    expect(await codeOf(receive(lower))).toBe("ok");
  });

  test("gets no version of another ceremony", async () => {
    const replaces = { replaces: stored.record.keyId };
    expect(await codeOf(world.open({ n: 2, change: replaces }))).toBe("ok");
    await parcel();
    expect(await codeOf(world.open({ n: 2, change: replaces }))).toBe("conflict");
  });

  test("is not sent to a key whose statement does not hold", async () => {
    const forged = { ...other.key.statement, key: { ...other.key.statement.key, sealing: world.keys.hpke.publicKey } };
    expect(await codeOf(parcel(forged))).toBe("integrity");
    const { ask } = await asker(world);
    expect(await codeOf(world.enclave.handle("stored.code", { stored, counter: 1, ask }))).toBe("ok");
  });
});
