import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import type { IncarnationId, StoredKeyId } from "../../../src/ids.ts";
import type { SignedCeremonyKey } from "../../../src/protocol/ceremony/model.ts";
import { otpCode, parseOtpUri } from "../../../src/protocol/otp.ts";
import { createCeremonies } from "../../../src/server/ceremony/index.ts";
import { STORED_KEY } from "../../../src/server/ceremony/storedkeys.ts";
import { putStored, readStored, removeStored } from "../../../src/server/documents.ts";
import { EARLIER } from "../../../src/server/incarnations.ts";
import { ARRIVAL, OTP_STATE, PARCEL } from "../../../src/server/otp/documents.ts";
import { pinOf } from "../../../src/wire/pin.ts";
import { codeOf } from "../../support/registryworld.ts";
import { HOTP, type OtpPerson, type OtpWorld, otpWorld, RFC_SECRET, TOTP } from "./world.ts";

/** A key goes from the store of one server to another one's, for good. */

// two servers with their enclaves for each
setDefaultTimeout(60_000);
let here: OtpWorld;
let there: OtpWorld;
let ann: OtpPerson;
let ben: OtpPerson;
let zoe: OtpPerson;
let to: SignedCeremonyKey;

const newest = async (world: OtpWorld): Promise<SignedCeremonyKey> => {
  const { items } = await createCeremonies(world.site)["ceremony.keys"]({ address: "127.0.0.1" }, {});
  const [first] = items;
  if (!first) throw new Error("no key");
  return first;
};

beforeEach(async () => {
  [here, there] = [await otpWorld(), await otpWorld({ name: "elsewhere" })];
  [ann, ben, zoe] = [await here.person("ann"), await here.person("ben"), await there.person("zoe")];
  to = await newest(there);
});
afterEach(async () => {
  await here.close();
  await there.close();
});

async function keyFor(output: typeof HOTP | typeof TOTP = HOTP): Promise<StoredKeyId> {
  const { keyId } = (await here.key(ann, "door", output, RFC_SECRET)).record;
  await here.grant(ann, keyId, ben, { wants: ["code", "provision"] });
  return keyId;
}
const send = (keyId: StoredKeyId, key = to, who = ann) => here.call("otp.send", { keyId, to: key }, who);

const rfc = (counter: number) =>
  otpCode({ ...HOTP, period: 30, secret: new TextEncoder().encode(RFC_SECRET), counter }, 0).code;

test("its counter goes on there, ahead of every code of here, and nothing is handed out or verified here any more", async () => {
  const keyId = await keyFor();
  const before = await here.code(keyId, ben);
  const { token } = await here.call("otp.token.create", { keyId, name: "shop", expiresAtMs: here.nowMs + 60_000 }, ann);
  const parcel = await send(keyId);
  expect(await send(keyId)).toEqual(parcel);
  expect(await codeOf(here.code(keyId, ben))).toBe("conflict");
  const refused = await here.check(ann, keyId, before).catch((error: Error) => error.message);
  expect(refused).toContain(pinOf(there.identity.publicKey));
  expect(await codeOf(here.service.admitToken("otp.verify", { address: "a", authorization: `Bearer ${token}` }))).toBe(
    "session_invalid",
  );
  const { items } = await here.call("otp.entries", { after: null }, ann);
  expect(items.map(({ status, movedTo }) => [status, movedTo])).toEqual([["moved", there.identity.publicKey]]);

  const view = await there.call("otp.receive", { parcel }, zoe);
  const moved = view.record.keyId;
  expect([moved === keyId, view.own, view.status]).toEqual([false, true, "active"]);
  expect(await there.call("otp.receive", { parcel }, zoe)).toEqual(view);
  await there.grant(zoe, moved, zoe);
  const code = await there.code(moved, zoe);
  expect(view.counter).toBe(parcel.counter);
  expect(parcel.counter).toBeGreaterThan(0);
  expect(code).toBe(rfc(parcel.counter));
  expect(await there.check(zoe, moved, code)).toBe("accepted");
});

test("who may ask for it learns where it went and under which id; nobody else learns that it ever was", async () => {
  const keyId = await keyFor();
  await send(keyId);
  const message = (asking: Promise<unknown>) =>
    asking.then(
      () => "",
      (error: Error) => error.message,
    );
  const told = await message(here.code(keyId, ben));
  const parcel = await send(keyId);
  const { record } = await there.call("otp.receive", { parcel }, zoe);
  expect(told).toContain(`${pinOf(there.identity.publicKey)} under the id ${record.keyId}`);
  const { items } = await here.call("otp.entries", { after: null }, ben);
  expect(items.find((one) => one.record.keyId === keyId)).toMatchObject({
    own: false,
    status: "moved",
    movedTo: there.identity.publicKey,
  });
  const never = await message(here.code("ab".repeat(32) as StoredKeyId, ben));
  expect(await message(here.code(keyId, await here.person("cleo")))).toBe(never);
  // nor does who was to have codes of it, once that is revoked
  const [grant] = (await here.call("otp.entries", { after: null }, ann)).items.flatMap(({ grants }) => grants);
  await here.call("otp.revoke", { keyId, grantId: grant?.grantId ?? null, askId: null }, ann);
  expect(await message(here.code(keyId, ben))).toBe(never);
});

test("its steps of now are not handed out there again", async () => {
  const first = await keyFor(TOTP);
  await here.code(first, ben);
  const parcel = await send(first);
  const { keyId } = (await there.call("otp.receive", { parcel }, zoe)).record;
  await there.grant(zoe, keyId, zoe);
  expect(await codeOf(there.code(keyId, zoe))).toBe("rate_limited");
  there.nowMs += 30_000;
  expect(await codeOf(there.code(keyId, zoe))).toBe("ok");
});

test("it is its issuer's to send, once, to one server", async () => {
  const keyId = await keyFor();
  expect(await codeOf(send(keyId, to, ben))).toBe("not_found");
  expect(await codeOf(send(keyId, await newest(here)))).toBe("bad_input");
  const forged = { ...to, signature: to.signature.map((byte) => byte ^ 1) };
  expect(await codeOf(send(keyId, forged))).toBe("integrity");
  await send(keyId);
  const third = await otpWorld({ name: "third" });
  expect(await codeOf(send(keyId, await newest(third)))).toBe("conflict");
  await third.close();
});

test("it can be sealed anew when the other server's key was replaced meanwhile, with the same counter", async () => {
  const keyId = await keyFor();
  const first = await send(keyId);
  const other = { ...(await newest(here)) };
  expect(other.key.server).not.toEqual(to.key.server);
  const next = await there.enclave.handle("ceremony.key", { server: there.identity.publicKey, number: 2 });
  const { ceremonyKeyBytes } = await import("../../../src/protocol/ceremony/records.ts");
  const statement = {
    key: next.key,
    signature: there.identity.sign(ceremonyKeyBytes(next.key)),
    enclaveSignature: next.enclaveSignature,
  };
  const again = await send(keyId, statement);
  expect([again.counter, again.to]).toEqual([first.counter, statement]);
  // what is here already stays as it came
  await there.call("otp.receive", { parcel: first }, zoe);
  expect(await codeOf(there.call("otp.receive", { parcel: again }, zoe))).toBe("conflict");
});

test("a key in an authenticator stays, and a revoked one does", async () => {
  const keyId = await keyFor();
  const asked = await here.ask(keyId, { want: "provision" });
  const { value } = await here.open(asked, await here.request(asked, ben));
  expect(parseOtpUri(value).counter).toBe(0);
  expect(await codeOf(send(keyId))).toBe("conflict");
  await here.call("otp.revoke", { keyId, grantId: null, askId: null }, ann);
  expect(await codeOf(send(keyId))).toBe("conflict");
});

test("a parcel that was changed, is another's, or comes to another server is refused", async () => {
  const keyId = await keyFor();
  const parcel = await send(keyId);
  expect(await codeOf(here.call("otp.receive", { parcel }, ann))).toBe("bad_input");
  const receive = (change: Partial<typeof parcel>, who = zoe) =>
    codeOf(there.call("otp.receive", { parcel: { ...parcel, ...change } }, who));
  expect(await receive({ counter: parcel.counter - 1 })).toBe("integrity");
  expect(await receive({ sealed: parcel.sealed.map((byte, at) => (at === 40 ? byte ^ 1 : byte)) })).toBe("integrity");
  expect(await receive({ record: { ...parcel.record, name: "other" } })).toBe("integrity");
  expect(await receive({})).toBe("ok");
  expect(await receive({}, await there.person("yan"))).toBe("conflict");
});

test("codes that are handed out while it leaves are all below the counter of the parcel", async () => {
  let during: (() => Promise<void>) | null = null;
  const world = await otpWorld({
    call: (enclave) => async (operation, input) => {
      const work = during;
      if (operation === "stored.send" && work) {
        during = null;
        await work();
      }
      return enclave.handle(operation, input);
    },
  });
  const [one, two] = [await world.person("one"), await world.person("two")];
  const { keyId } = (await world.key(one, "door", HOTP, RFC_SECRET)).record;
  await world.grant(one, keyId, two);
  const codes: string[] = [];
  during = async () => {
    for (let i = 0; i < 70; i++) codes.push(await world.code(keyId, two));
  };
  const parcel = await world.call("otp.send", { keyId, to }, one);
  expect(codes).toEqual(Array.from({ length: 70 }, (_, i) => rfc(i)));
  expect(parcel.counter).toBeGreaterThanOrEqual(70);
  await world.close();
});

test("a server that came back from a backup of before gives nothing of a key that has left, and may send it there again", async () => {
  const keyId = await keyFor();
  await here.code(keyId, ben);
  const row = () => here.store.transaction((tx) => readStored(tx, STORED_KEY, keyId));
  const [before, parcel] = [await row(), await send(keyId)];
  const now = await row();
  if (!before || !now) throw new Error("no key");
  // the database is that of the backup, the enclave's journal is the newest one
  await here.store.transaction(async (tx) => {
    await tx.putSetting(EARLIER, here.incarnation);
    await putStored(tx, STORED_KEY, before, now.version);
    await removeStored(tx, PARCEL, keyId);
  });
  here.incarnation = "2".repeat(32) as IncarnationId;
  here.rebuild();
  expect((await here.call("otp.entries", { after: null }, ann)).items.map(({ status }) => status)).toEqual(["active"]);
  expect(await codeOf(here.code(keyId, ben))).toBe("denied");
  expect(await codeOf(here.check(ann, keyId, rfc(0)))).toBe("conflict");
  const third = await otpWorld({ name: "third" });
  expect(await codeOf(send(keyId, await newest(third)))).toBe("conflict");
  await third.close();
  const again = await send(keyId);
  expect(again.counter).toBeGreaterThan(parcel.counter);
  expect((await here.call("otp.entries", { after: null }, ann)).items.map(({ status }) => status)).toEqual(["moved"]);
  expect(await codeOf(there.call("otp.receive", { parcel: again }, zoe))).toBe("ok");
});

test("a store that fails at each transaction loses no key and doubles none", async () => {
  for (const when of ["before", "after"] as const) {
    const at = { left: 0 };
    const world = await otpWorld({
      wrap: (store) => ({
        ...store,
        engine: store.engine,
        transaction: async (work, near) => {
          at.left -= 1;
          const mine = at.left === 0;
          if (mine && when === "before") throw new Error("killed");
          const done = await store.transaction(work, near);
          if (mine) throw new Error("killed");
          return done;
        },
      }),
    });
    const one = await world.person("one");
    await newest(world);
    for (let step = 1; step <= 3; step++) {
      const { keyId } = (await world.key(one, `door-${step}`)).record;
      at.left = step;
      const first = await codeOf(world.call("otp.send", { keyId, to }, one));
      at.left = 0;
      const parcel = await world.call("otp.send", { keyId, to }, one);
      expect([step, first]).toEqual([step, "no fault: Error: killed"]);
      expect(await world.call("otp.send", { keyId, to }, one)).toEqual(parcel);
      expect((await there.call("otp.receive", { parcel }, zoe)).record.name).toBe(`door-${step}`);
    }
    await world.close();
    await there.store.transaction((tx) => tx.removeAccount(zoe.userId));
    await there.store.transaction((tx) => tx.insertAccount(zoe.row));
  }
});

test("a parcel is good for the account that brought it first, also once that account and all it had are gone", async () => {
  const keyId = await keyFor();
  const parcel = await send(keyId);
  const moved = (await there.call("otp.receive", { parcel }, zoe)).record.keyId;
  const yan = await there.person("yan");
  expect(await codeOf(there.call("otp.receive", { parcel }, yan))).toBe("conflict");
  await there.store.transaction((tx) => tx.removeAccount(zoe.userId));
  await there.service.sweep();
  for (const kind of [ARRIVAL, STORED_KEY, OTP_STATE] as const)
    expect(await there.store.transaction((tx) => readStored<unknown>(tx, kind, moved))).toBeUndefined();
  for (const restart of [false, true]) {
    if (restart) there.rebuild();
    expect(await codeOf(there.call("otp.receive", { parcel }, yan))).toBe("conflict");
  }
  expect((await there.call("otp.entries", { after: null }, yan)).items).toEqual([]);
});
