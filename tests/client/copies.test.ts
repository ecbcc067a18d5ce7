import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../src/errors.ts";
import { parseOtpUri } from "../../src/protocol/otp.ts";
import { undelivered } from "../../src/wire/failure.ts";
import { addTestDevice, type Middle, registerDevice, type TestDevice } from "../support/harness.ts";
import { impatient, rejected, startVillain, storing, type Villain } from "../support/hostile.ts";

const PASSWORD = "a password of ada";
const HOTP = "otpauth://hotp/bank:ada?issuer=bank&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&counter=0";
const CODES = ["755224", "287082", "359152", "969429", "338314"];
const ascii = (text: string) => new TextEncoder().encode(text);
const refused: Middle = async () => {
  throw undelivered(new Fault("unreachable", "nothing listens there"));
};

let villain: Villain;
let here: TestDevice;
let there: TestDevice;
let count = 0;
beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  const account = `copies ${count++}`;
  here = await registerDevice(villain.link, account, PASSWORD);
  there = await addTestDevice(villain.link, account, PASSWORD);
  for (const device of [here, there]) impatient(device);
});
afterEach(async () => {
  await here.end();
  await there.end();
});

const away = <T>(work: () => Promise<T>): Promise<T> => villain.during(refused, work);
const reading = (device: TestDevice, name: string) =>
  device.client.get({ name, version: null, reveal: true, fresh: false, save: false });
const textOf = async (device: TestDevice, name: string) =>
  new TextDecoder().decode((await reading(device, name)).value ?? undefined);

describe("copies of every value", () => {
  test("let a second device read all of it while the server is away, and are renewed", async () => {
    await here.client.store(storing("a", "first"));
    await here.client.store(storing("b", "other"));
    await there.client.sync();
    await away(() => rejected(reading(there, "a"), "unreachable"));
    expect(await there.client.keepCopies()).toMatchObject({ kept: 2, left: 0 });
    expect(await there.client.keepCopies()).toMatchObject({ kept: 0, left: 0 });
    expect(await away(() => textOf(there, "a"))).toBe("first");
    await here.client.store(storing("a", "second"));
    expect(await there.client.keepCopies()).toMatchObject({ kept: 1, left: 0 });
    expect(await away(() => textOf(there, "a"))).toBe("second");
    await away(() => rejected(there.client.keepCopies(), "unreachable"));
  });

  test("are of what is there, not of what was removed", async () => {
    await here.client.store(storing("a", "first"));
    await here.client.remove({ name: "a", purge: false });
    expect(await there.client.keepCopies()).toMatchObject({ kept: 0, left: 0 });
  });
});

describe("a counter that two devices used", () => {
  const keep = {
    value: { type: "hotp" as const, value: ascii(HOTP), tags: [], where: null },
    field: {
      type: "login" as const,
      value: ascii("secret"),
      tags: [],
      where: null,
      fields: [{ name: "otp", kind: "otp" as const, value: HOTP }],
    },
  };
  const code = async (device: TestDevice) => (await device.client.otp({ name: "bank", fresh: false })).code;

  for (const [kind, input] of Object.entries(keep)) {
    test(`goes on from the higher count, kept as ${kind}: no code comes a second time after that`, async () => {
      await here.client.store({ name: "bank", ...input });
      await there.client.sync();
      // while nobody can know of the other, both show the first code
      expect(await away(() => code(here))).toBe(CODES[0] ?? "");
      expect([await code(there), await code(there), await code(there)]).toEqual(CODES.slice(0, 3));
      expect(await here.client.sync()).toMatchObject({ sent: 1, conflicts: 1 });
      expect(await code(here)).toBe(CODES[3] ?? "");
      expect(await code(there)).toBe(CODES[4] ?? "");
    });
  }

  test("goes on from the count of here where that is the higher one, or the key is another one", async () => {
    await here.client.store({ name: "bank", ...keep.value });
    await there.client.sync();
    await away(async () => {
      for (let i = 0; i < 3; i++) expect(await code(here)).toBe(CODES[i] ?? "");
    });
    expect(await code(there)).toBe(CODES[0] ?? "");
    await here.client.sync();
    expect(await code(there)).toBe(CODES[3] ?? "");

    const other = HOTP.replace("GEZD", "AAAA").replace("counter=0", "counter=9");
    await away(() => here.client.store({ name: "bank", ...keep.value, value: ascii(other) }));
    await code(there);
    await here.client.sync();
    const now = parseOtpUri(await textOf(here, "bank"));
    expect([now.counter, now.secret]).toEqual([9, parseOtpUri(other).secret]);
  });
});
