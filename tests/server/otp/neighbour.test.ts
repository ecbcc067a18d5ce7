import { afterEach, beforeEach, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import type { OtpAskId, StoredKeyId } from "../../../src/ids.ts";
import { createCeremonies } from "../../../src/server/ceremony/index.ts";
import type { KeyStoreOperation } from "../../../src/server/context.ts";
import { type InputOf, operations } from "../../../src/wire/operations.ts";
import { random } from "../../support/harness.ts";
import { hookedStore, recorder } from "../../support/storeprobe.ts";
import { HOTP, type OtpPerson, type OtpWorld, otpWorld } from "./world.ts";

/**
 * Others at the distribution server (docs/threat-model.md, adversary E) with every operation of a session that names a
 * key: hers and ones that nobody has are answered alike, in code and text, at the same cost, and nothing of hers moves.
 */

type OtpOperation = Extract<KeyStoreOperation, `otp.${string}`>;

interface Ids {
  readonly keyId: StoredKeyId;
  readonly grantId: string;
  readonly askId: OtpAskId;
  readonly tokenId: string;
}

const hooked = hookedStore();
let world: OtpWorld;
let hers: Ids;
let others: readonly OtpPerson[];

beforeEach(async () => {
  hooked.hook = null;
  world = await otpWorld({ wrap: hooked.wrap });
  const [ann, ben, sam] = [await world.person("ann"), await world.person("ben"), await world.person("sam")];
  const { keyId } = (await world.key(ann, "door")).record;
  const { grants } = await world.grant(ann, keyId, ben);
  const { askId } = await world.request(await world.ask(keyId), ben);
  const { tokenId } = await world.call(
    "otp.token.create",
    { keyId, name: "shop", expiresAtMs: world.nowMs + 60_000 },
    ann,
  );
  hers = { keyId, grantId: grants[0]?.grantId ?? "", askId: askId as OtpAskId, tokenId };
  // one who may have her codes, and one who has nothing to do with her and a key of his own
  await world.key(sam, "own");
  others = [ben, sam];
});
afterEach(() => world.close());

/** How an operation takes another's ids; words say why it is not asked here. */
type Ask<N extends OtpOperation> = (ids: Ids) => InputOf<N> | Promise<InputOf<N>>;
const ASKS: { readonly [N in OtpOperation]: Ask<N> | "makes" | "own" | "parcel" | "requester" } = {
  "otp.create": "makes",
  "otp.entries": "own",
  "otp.grant": ({ keyId }) => ({
    keyId,
    to: { kind: "account", account: "sam" },
    wants: ["code"],
    perHour: null,
    untilMs: null,
  }),
  "otp.revoke": ({ keyId, grantId, askId }) => ({ keyId, grantId, askId }),
  "otp.handouts": ({ keyId, askId }) => ({ keyId, after: askId }),
  // tests/server/otp/requests.test.ts
  "otp.request": "requester",
  "otp.check": ({ keyId }) => ({ keyId, code: "123456", next: null }),
  "otp.token.create": ({ keyId }) => ({ keyId, name: "mine", expiresAtMs: world.nowMs + 60_000 }),
  "otp.token.list": ({ keyId }) => ({ keyId }),
  "otp.token.revoke": ({ keyId, tokenId }) => ({ keyId, tokenId }),
  "otp.send": async ({ keyId }) => {
    const { items } = await createCeremonies(world.site)["ceremony.keys"]({ address: "127.0.0.1" }, {});
    const [to] = items;
    if (!to) throw new Error("no key");
    return { keyId, to };
  },
  // tests/server/otp/moves.test.ts
  "otp.receive": "parcel",
};

test("every operation of a session is in the table", () => {
  const all = Object.entries(operations).flatMap(([name, { auth }]) =>
    auth === "session" && name.startsWith("otp.") ? [name] : [],
  );
  expect(Object.keys(ASKS).toSorted()).toEqual(all.toSorted());
});

const ASKED = Object.entries(ASKS).flatMap(([name, ask]) =>
  typeof ask === "function" ? [[name as OtpOperation, ask as Ask<OtpOperation>] as const] : [],
);

test.each(ASKED)("%s answers hers like ones of nobody", async (operation, ask) => {
  const nobodys: Ids = {
    keyId: random(32).toHex() as StoredKeyId,
    grantId: random(16).toHex(),
    askId: random(32).toHex() as OtpAskId,
    tokenId: random(32).toHex(),
  };
  const state = async () => JSON.stringify(await world.store.transaction((tx) => tx.document("otpState", hers.keyId)));
  const before = await state();
  for (const who of others) {
    const answers: object[] = [];
    for (const ids of [nobodys, nobodys, hers, nobodys]) {
      const input = await ask(ids);
      const record = recorder();
      hooked.hook = record.hook;
      const said = await world.call(operation, input as never, who).then(
        () => "ok",
        (error: unknown) => (error instanceof Fault ? [error.code, error.message] : error),
      );
      hooked.hook = null;
      answers.push({ said, lines: record.lines });
    }
    const [, fake, real] = answers;
    expect(real).toEqual(fake as object);
    if (operation !== "otp.send") expect(fake).toMatchObject({ said: ["not_found", "no such key"] });
  }
  expect(await state()).toBe(before);
});

test("somebody else's hand-outs, grants and tokens are none of an own key", async () => {
  const sam = others[1];
  if (!sam) throw new Error("nobody");
  const { keyId } = (await world.key(sam, "mine", HOTP)).record;
  const said = (work: Promise<unknown>) => work.catch((error: Fault) => error.code);
  const { grantId, askId, tokenId } = hers;
  expect(await said(world.call("otp.revoke", { keyId, grantId, askId: null }, sam))).toBe("not_found");
  expect(await said(world.call("otp.revoke", { keyId, grantId: null, askId }, sam))).toBe("not_found");
  expect(await said(world.call("otp.token.revoke", { keyId, tokenId }, sam))).toBe("not_found");
  expect(await world.call("otp.handouts", { keyId, after: askId }, sam)).toEqual({ items: [], more: false });
});
