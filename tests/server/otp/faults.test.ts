import { Database } from "bun:sqlite";
import { afterEach, describe, expect, test } from "bun:test";
import { toBase64url } from "../../../src/crypto/bytes.ts";
import type { Store } from "../../../src/storage/store.ts";
import { codeOf } from "../../support/registryworld.ts";
import { HOTP, type OtpPerson, type OtpWorld, otpWorld, RFC_SECRET } from "./world.ts";

/** Killed at every step, from all sides at once: a counter never goes back, and no code comes twice. */

const worlds: OtpWorld[] = [];
afterEach(async () => {
  for (const world of worlds.splice(0).toReversed()) await world.close();
});

async function begin(options: Parameters<typeof otpWorld>[0] = {}) {
  const world = await otpWorld(options);
  worlds.push(world);
  const [ann, ben, eve] = [await world.person("ann"), await world.person("ben"), await world.person("eve")];
  const { keyId } = (await world.key(ann, "door")).record;
  await world.grant(ann, keyId, ben, { perHour: 1_000 });
  await world.grant(ann, keyId, eve, { perHour: 1_000 });
  return { world, ann, ben, eve, keyId };
}

const counterOf = async (world: OtpWorld, who: OtpPerson) =>
  (await world.call("otp.entries", { after: null }, who)).items[0]?.counter ?? Number.NaN;

describe("many at once", () => {
  test("50 asks get 50 codes and 50 counters, through two processes over one store", async () => {
    const { world, ann, ben, eve, keyId } = await begin();
    const beside = await otpWorld({ beside: world });
    worlds.push(beside);
    const asked = await Promise.all(Array.from({ length: 50 }, () => world.ask(keyId)));
    const handed = await Promise.all(asked.map((one, i) => (i % 2 ? world : beside).request(one, i % 3 ? ben : eve)));
    const codes = await Promise.all(asked.map(async (one, i) => (await world.open(one, handed[i] as never)).value));
    expect(new Set(codes).size).toBe(50);
    expect(await counterOf(world, ann)).toBeGreaterThanOrEqual(50);
    // each is accepted once, wherever it is asked twice at the same time
    for (const code of codes.slice(0, 10)) {
      const verdicts = await Promise.all([world.check(ann, keyId, code), beside.check(ann, keyId, code)]);
      expect(verdicts.toSorted()).toEqual(["accepted", "used"]);
    }
  });

  test("the same ask at the same time gets the same bytes and one counter", async () => {
    const { world, ann, ben, keyId } = await begin();
    const beside = await otpWorld({ beside: world });
    worlds.push(beside);
    const asked = await world.ask(keyId);
    const handed = await Promise.all(Array.from({ length: 8 }, (_, i) => (i % 2 ? world : beside).request(asked, ben)));
    for (const one of handed) expect(one).toEqual(handed[0] as never);
    expect(await counterOf(world, ann)).toBe(1);
  });
});

/** Fails the transaction of this number: before it did anything, or after it became durable. */
function failing(store: Store, at: { left: number; when: "before" | "after" }): Store {
  return {
    ...store,
    engine: store.engine,
    transaction: async (work, near) => {
      at.left -= 1;
      const mine = at.left === 0;
      if (mine && at.when === "before") throw new Error("killed");
      const done = await store.transaction(work, near);
      if (mine) throw new Error("killed");
      return done;
    },
  };
}

describe("killed", () => {
  test.each(["before", "after"] as const)(
    "%s each transaction, the same ask ends with one code of its own",
    async (when) => {
      const at = { left: 0, when };
      const { world, ann, ben, eve, keyId } = await begin({ wrap: (store) => failing(store, at) });
      const seen = new Set<string>();
      let highest = 0;
      for (let step = 1; step <= 3; step++) {
        const asked = await world.ask(keyId);
        at.left = step;
        const first = await codeOf(world.request(asked, ben));
        expect([step, first]).toEqual([step, step <= 2 ? "no fault: Error: killed" : "ok"]);
        at.left = 0;
        world.rebuild();
        const between = await world.code(keyId, eve);
        const handed = await world.request(asked, ben);
        const { value } = await world.open(asked, handed);
        expect(await world.request(asked, ben)).toEqual(handed);
        for (const code of [between, value]) {
          expect(seen.has(code)).toBe(false);
          seen.add(code);
        }
        const now = await counterOf(world, ann);
        expect(now).toBeGreaterThanOrEqual(highest + 2);
        highest = now;
        expect(await world.check(ann, keyId, value)).toBe("accepted");
      }
    },
  );

  test("in the enclave, what was allocated is finished by the same ask, or is a gap", async () => {
    let fail = false;
    const { world, ann, ben, keyId } = await begin({
      call: (enclave) => async (operation, input) => {
        if (fail && operation === "stored.code") throw new Error("killed");
        return enclave.handle(operation, input);
      },
    });
    const [finished, gap] = [await world.ask(keyId), await world.ask(keyId)];
    fail = true;
    for (const one of [finished, gap]) expect(await codeOf(world.request(one, ben))).toBe("no fault: Error: killed");
    fail = false;
    await world.request(finished, ben);
    expect(await counterOf(world, ann)).toBe(2);
    await world.code(keyId, ben);
    expect(await counterOf(world, ann)).toBe(3);
    // too late: its counter stays a gap
    world.nowMs += 300_000;
    expect(await codeOf(world.request(gap, ben))).toBe("stale");
    expect(await counterOf(world, ann)).toBe(3);
  });

  test.each(["before", "after"] as const)("%s each transaction of a check, no code is accepted twice", async (when) => {
    const at = { left: 0, when };
    const { world, ann, ben, keyId } = await begin({ wrap: (store) => failing(store, at) });
    for (let step = 1; step <= 2; step++) {
      const code = await world.code(keyId, ben);
      at.left = step;
      expect(await codeOf(world.check(ann, keyId, code))).toBe("no fault: Error: killed");
      at.left = 0;
      world.rebuild();
      const lost = when === "after" && step === 2;
      expect(await world.check(ann, keyId, code)).toBe(lost ? "used" : "accepted");
      expect(await world.check(ann, keyId, code)).toBe("used");
    }
  });

  test.each(["before", "after"] as const)("%s each transaction, a key is made once", async (when) => {
    const at = { left: 0, when };
    const world = await otpWorld({ wrap: (store) => failing(store, at) });
    worlds.push(world);
    const ann = await world.person("ann");
    for (let step = 1; step <= 2; step++) {
      const input = { name: `door-${step}`, output: HOTP, nonce: new Uint8Array(32).fill(step), value: null };
      at.left = step;
      expect(await codeOf(world.call("otp.create", input, ann))).toBe("no fault: Error: killed");
      at.left = 0;
      const made = await world.call("otp.create", input, ann);
      expect(await world.call("otp.create", input, ann)).toEqual(made);
    }
    expect((await world.call("otp.entries", { after: null }, ann)).items.length).toBe(2);
  });
});

describe("codes that are equal by chance", () => {
  /** Every counter below `same` has the digits of counter 0. */
  async function colliding(same: number) {
    const begun = await begin({
      call: (enclave) => async (operation, input) => {
        const counter = "counter" in input && "ask" in input ? input.counter : 0;
        if (operation !== "stored.code" || counter >= same) return enclave.handle(operation, input);
        return enclave.handle(operation, { ...input, counter: 0 } as typeof input);
      },
    });
    return begun;
  }

  test("are open with one requester at a time: the next counter takes their place", async () => {
    const { world, ann, ben, eve, keyId } = await colliding(4);
    const [one, two] = [await world.code(keyId, ben), await world.code(keyId, eve)];
    expect(two).not.toBe(one);
    expect(await counterOf(world, ann)).toBe(5);
    const asked = await world.ask(keyId);
    expect(await world.request(asked, ben)).toEqual(await world.request(asked, ben));
  });

  test("come again once the other is used, and the newest one counts", async () => {
    const { world, ann, ben, eve, keyId } = await colliding(2);
    const one = await world.code(keyId, ben);
    expect(await world.check(ann, keyId, one)).toBe("accepted");
    expect(await world.code(keyId, eve)).toBe(one);
    expect(await world.check(ann, keyId, one)).toBe("accepted");
    expect(await world.check(ann, keyId, one)).toBe("used");
  });

  test("without end are given up", async () => {
    const { world, ben, eve, keyId } = await colliding(1_000);
    await world.code(keyId, ben);
    expect(await codeOf(world.code(keyId, eve))).toBe("unavailable");
  });
});

test("no code, no secret and no requester's name is in the database, whatever happens to it", async () => {
  const { world, ann, ben } = await begin();
  const clear = await world.person("clarissa");
  // ten digits: nothing in hexadecimal looks like them by chance
  const { keyId } = (await world.key(ann, "known", { ...HOTP, digits: 10 }, RFC_SECRET)).record;
  await world.grant(ann, keyId, ben);
  await world.grant(ann, keyId, clear, { wants: ["code", "provision"] });
  const codes: string[] = [];
  for (let i = 0; i < 6; i++) codes.push(await world.code(keyId, i % 2 ? ben : clear));
  expect(await world.check(ann, keyId, codes[0] ?? "")).toBe("accepted");
  expect(await world.check(ann, keyId, "0000000000")).toBe("unknown");
  const db = new Database(world.path);
  const tables = db.query("SELECT name FROM sqlite_schema WHERE type = 'table'").all() as { name: string }[];
  const rows = tables.flatMap(({ name }) => db.query(`SELECT * FROM ${name}`).all() as Record<string, unknown>[]);
  db.close();
  const text = rows
    .flatMap((row) => Object.values(row))
    .map((value) =>
      value instanceof Uint8Array ? `${new TextDecoder().decode(value)} ${value.toHex()}` : String(value),
    )
    .join("\n");
  // what must be there shows that the right place is looked at
  for (const there of ["otpHandout", "otpGrant", keyId]) expect(text).toContain(there);
  for (const code of codes) expect(text).not.toContain(code);
  const secret = new TextEncoder().encode(RFC_SECRET);
  for (const form of [RFC_SECRET, secret.toHex(), toBase64url(secret), "clarissa"]) expect(text).not.toContain(form);
});
