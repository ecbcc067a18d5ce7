import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { rejected } from "../../support/hostile.ts";
import { HOTP, joinWith, type Keeper, type Person, untilOver, type World, wish, world } from "./world.ts";

/* Names of keys in the store, and of the ceremonies that made them. */

// vaults are written and flushed at each step
setDefaultTimeout(60_000);

const worlds: World[] = [];
afterEach(async () => {
  for (const one of worlds.splice(0)) await one.end();
});

const BYTES = { kind: "bytes", length: 32 } as const;

async function people() {
  const made = world();
  worlds.push(made);
  const at: Keeper = await made.keeper();
  return { made, at, ada: await made.account("ada", at), ben: await made.local("ben"), cleo: await made.local("cleo") };
}

/** Has a ceremony of two to its end. */
async function made(
  organiser: Person,
  [ben, cleo]: readonly [Person, Person],
  change: Parameters<typeof wish>[1] = {},
) {
  const { info, invites } = await organiser.client.ceremonyOpen(wish(["ben", "cleo"], { output: BYTES, ...change }));
  await ben.client.ceremonyJoin(joinWith(invites[0]));
  await cleo.client.ceremonyJoin(joinWith(invites[1]));
  return untilOver([ben, cleo], info.ceremonyId);
}

describe("the name of a key in the store", () => {
  test("is its next version's with --replace, of the same kind; without it no other key gets it", async () => {
    const { ada, ben, cleo } = await people();
    const first = await made(ada, [ben, cleo]);
    const two = wish(["ben", "cleo"], { output: BYTES });
    const taken = await rejected(ada.client.ceremonyOpen(two), "exists");
    expect(taken.hint).toContain("--replace");
    const other = await rejected(ada.client.ceremonyOpen({ ...two, output: HOTP, replace: true }), "conflict");
    expect(other.hint).toContain("--output bytes");
    const second = await made(ada, [ben, cleo], { replace: true });
    expect(second.result).toMatchObject({ keyId: first.result?.keyId as string, version: 2 });
    // both are of one key: the newest is meant
    for (const { client } of [ada, ben])
      expect((await client.ceremony({ ceremony: "door" })).ceremonyId).toBe(second.ceremonyId);
    await rejected(ada.client.ceremonyOpen({ ...two, name: "gate", replace: true }), "not_found");
  });

  test("of a one-time password that was revoked is free, and --replace means the one in use", async () => {
    const { ada, ben, cleo } = await people();
    const old = await ada.client.otpCreate({ name: "door", output: HOTP as never, from: null });
    await ada.client.otpRevoke({ key: "door", grantId: null, askId: null });
    const output = HOTP;
    const first = await made(ada, [ben, cleo], { output, policy: { collect: "nobody", quorum: 0 } });
    expect(first.result?.keyId).not.toBe(old.keyId);
    const policy = { collect: "nobody", quorum: 0 } as const;
    const { info } = await ada.client.ceremonyOpen(wish(["ben", "cleo"], { output, policy, replace: true }));
    expect(info.status).toBe("open");
  });
});

describe("a name that several ceremonies have made keys of", () => {
  test("is not guessed: neither status, nor collect, nor transcript, nor opening; ids and their beginnings mean one", async () => {
    const { made: all, at, ada, ben, cleo } = await people();
    const eve = await all.account("eve", at);
    const [first, second] = [await made(ada, [ben, cleo]), await made(eve, [ben, cleo])];
    const { client } = ben;
    for (const asked of [
      () => client.ceremony({ ceremony: "door" }),
      () => client.ceremonyCollect({ ceremony: "door" }),
      () => client.ceremonyTranscript({ ceremony: "door" }),
      () => client.ceremonyOpening({ ceremony: "door" }),
    ]) {
      const { why } = await rejected(asked(), "ambiguous");
      for (const { ceremonyId } of [first, second]) expect(why).toContain(ceremonyId);
    }
    for (const { ceremonyId } of [first, second])
      expect((await client.ceremony({ ceremony: ceremonyId.slice(0, 16) })).ceremonyId).toBe(ceremonyId);
    // one that goes on is meant as before
    const { info, invites } = await ada.client.ceremonyOpen(wish(["ben", "cleo"], { output: BYTES, replace: true }));
    await client.ceremonyJoin(joinWith(invites[0]));
    expect((await client.ceremony({ ceremony: "door" })).ceremonyId).toBe(info.ceremonyId);
    // whoever has but one of them is not asked which
    expect((await eve.client.ceremony({ ceremony: "door" })).ceremonyId).toBe(second.ceremonyId);
  });
});
