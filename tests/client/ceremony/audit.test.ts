import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { AuditItem, AuditQuery } from "../../../src/client/api.ts";
import { verifyAudit } from "../../../src/client/auditing.ts";
import { listAudit } from "../../../src/client/auditlist.ts";
import { type LoggedName, loggedIds } from "../../../src/client/auditnames.ts";
import { storeSecret } from "../../../src/client/writing.ts";
import { Fault } from "../../../src/errors.ts";
import type { KeyId } from "../../../src/ids.ts";
import { asId } from "../../../src/ids.ts";
import { rejected } from "../../support/hostile.ts";
import { HOTP, joinWith, type Keeper, meddling, type Person, type World, wish, world } from "./world.ts";

/* What the audit log says of hand-outs and ceremonies, to issuers, requesters and organisers. */

setDefaultTimeout(60_000);

let made: World;
let at: Keeper;
let issuer: Person;
let user: Person;
let door: Person;
let turn = 0;

beforeAll(async () => {
  made = world();
  at = await made.keeper();
  issuer = await made.account("issuer", at);
  user = await made.account("user", at);
  door = await made.local("door");
});
afterAll(() => made.end());

const EVERYTHING: AuditQuery = {
  ...{ name: null, action: null, fromMs: null, untilMs: null, requestId: null },
  ...{ limit: null, cursor: null, purpose: "list" },
};
const log = async ({ open }: Person, query: Partial<AuditQuery> = {}): Promise<readonly AuditItem[]> =>
  (await listAudit(open, { ...EVERYTHING, ...query })).items;
const server = () => ({ url: at.url, pin: at.pin });
const GRANT = { wants: ["code"], perHour: null, untilMs: null } as const;
const shown = (items: readonly AuditItem[]) =>
  items.flatMap(({ action, name, handedTo }) =>
    action.startsWith("otp.request") ? [[action, name, handedTo ?? null] as unknown] : [],
  );

/** A key of which an account and a device were handed a code each. */
async function handed() {
  const name = `gate${++turn}`;
  const { keyId } = await issuer.client.otpCreate({ name, output: HOTP as never, from: null });
  const { keyHex } = await door.client.otpDevice();
  await issuer.client.otpGrant({ ...GRANT, key: keyId, to: { kind: "account", name: "user" } });
  const { grants } = await issuer.client.otpGrant({ ...GRANT, key: keyId, to: { kind: "device", name: keyHex } });
  await user.client.otpRequest({ key: name, want: "code", server: null });
  await door.client.otpRequest({ key: keyId, want: "code", server: server() });
  const issued = [
    ["otp.request", name, { kind: "account", name: "user" }],
    ["otp.request.device", name, { kind: "device", name: keyHex }],
  ];
  return { name, keyId, grants, issued };
}

describe("hand-outs in the log", () => {
  test("are found by the key's name, id, or the start of it: by the issuer with who was handed it, by the requester", async () => {
    const { name, keyId, issued } = await handed();
    for (const wanted of [name, keyId, keyId.slice(0, 32), keyId.slice(0, 10)]) {
      const items = await log(issuer, { name: wanted });
      expect([wanted, shown(items)]).toEqual([wanted, issued]);
      expect(items.every((item) => item.keyId === keyId.slice(0, 32))).toBe(true);
      expect(items.map(({ action }) => action)).toContain("otp.create");
      expect([wanted, shown(await log(user, { name: wanted }))]).toEqual([wanted, [["otp.request", name, null]]]);
    }
    const all = shown(await log(issuer)).filter((one) => (one as string[])[1] === name);
    expect(all).toEqual(issued);
    expect((await verifyAudit(issuer.open)).ok).toBe(true);
  });

  test("say to whom while the grant stands, or the hand-out is listed; then no more", async () => {
    const { name, grants, issued } = await handed();
    at.middle = meddling("otp.handouts", () => ({ items: [], more: false }));
    expect(shown(await log(issuer, { name }))).toEqual(issued);
    at.middle = null;
    for (const { grantId } of grants) await issuer.client.otpRevoke({ key: name, grantId, askId: null });
    expect(shown(await log(issuer, { name }))).toEqual(issued);
    const entries = await at.server.store.transaction((tx) =>
      tx.audit(issuer.open.box.model.owner, { ...EVERYTHING, after: 0, limit: 1_000, keyId: null, requestId: null }),
    );
    // neither in clear nor twice the same for two requesters
    const hashes = entries
      .filter(({ entry }) => entry.action.startsWith("otp.request"))
      .map(({ entry }) => entry.bodyHash);
    expect(hashes.every((hash) => hash.some((byte) => byte !== 0))).toBe(true);
    expect(new Set(hashes.slice(-2).map((hash) => hash.toHex())).size).toBe(2);
  });

  test("a requester whose grant was taken back finds its entries by the id that the log shows", async () => {
    const { name, keyId, grants } = await handed();
    for (const { grantId } of grants) await issuer.client.otpRevoke({ key: name, grantId, askId: null });
    await rejected(log(user, { name }), "not_found");
    for (const wanted of [keyId, keyId.slice(0, 32)])
      expect(shown(await log(user, { name: wanted }))).toEqual([["otp.request", null, null]]);
  });

  test("what is nowhere is said to be nowhere, by name and by id", async () => {
    for (const name of ["nobody", "ab".repeat(32), "ab".repeat(16), "abababab"])
      await rejected(log(issuer, { name }), "not_found");
    // and one that is there, but not in this time
    const { name, keyId } = await handed();
    for (const wanted of [name, keyId]) expect(await log(issuer, { name: wanted, untilMs: 1 })).toEqual([]);
  });

  test("a secret and a key of one name are both meant, page by page in order", async () => {
    const { name } = await handed();
    await storeSecret(issuer.open, {
      ...{ name, type: "password", value: new TextEncoder().encode("x"), tags: [], where: null, ifVersion: 0 },
    } as never);
    const whole = await log(issuer, { name });
    expect(whole.map(({ action }) => action)).toEqual(expect.arrayContaining(["otp.create", "secret.store"]));
    expect(whole.map(({ seq }) => seq)).toEqual(whole.map(({ seq }) => seq).toSorted((a, b) => a - b));
    const paged: number[] = [];
    for (let cursor: string | null = null, page = 0; page < 50; page++) {
      const { items, next } = await listAudit(issuer.open, { ...EVERYTHING, name, limit: 2, cursor });
      expect(items.length).toBeLessThanOrEqual(2);
      paged.push(...items.map(({ seq }) => seq));
      if (next === null) break;
      cursor = next;
    }
    expect(paged.slice(0, whole.length)).toEqual(whole.map(({ seq }) => seq));
  });
});

test("ceremonies are found by name too, and the key that came of one with it", async () => {
  const { info, invites } = await issuer.client.ceremonyOpen(
    wish(["ann"], {
      name: "vault",
      seats: [
        { name: "ann", account: null },
        { name: "user", account: "user" },
      ],
    }),
  );
  const ann = await made.local("ann");
  await ann.client.ceremonyJoin(joinWith(invites[0]));
  await issuer.client.ceremonyClose({ ceremony: "vault", abort: true });
  const items = await log(issuer, { name: "vault" });
  expect(items.map(({ action }) => action)).toEqual(expect.arrayContaining(["ceremony.open", "ceremony.close"]));
  expect(items.every(({ name, keyId }) => name === "vault" && keyId === info.ceremonyId.slice(0, 32))).toBe(true);
  expect(await log(issuer, { name: info.ceremonyId.slice(0, 9), action: "ceremony.open" })).toHaveLength(1);
});

describe("a name is never guessed", () => {
  const named = (id: string, name: string): LoggedName => ({ id: id.repeat(8), name });
  const known = [named("abcd0001", "gate"), named("abcd0002", "gate"), named("abcd0003", "vault")];
  const short = (...at: number[]) => at.map((one) => known[one]?.id.slice(0, 32));

  test("one name is all that have it; an id's start is one", () => {
    expect(loggedIds(known, "gate", null) as unknown).toEqual(short(0, 1));
    expect(loggedIds(known, "abcd0002", null) as unknown).toEqual(short(1));
    expect(loggedIds(known, "abc", null)).toEqual([]);
    expect(loggedIds(known, "nobody", null)).toEqual([]);
  });

  test("a start of several ids is refused, a secret's among them", () => {
    expect(() => loggedIds(known, "abcd", null)).toThrow(expect.objectContaining({ code: "ambiguous" }) as Fault);
    const secret = { keyId: asId<KeyId>("abcd0002".repeat(4).replace(/^abcd0002/, "abcd9999")), name: "mail" };
    expect(loggedIds([], "abcd9", secret)).toEqual([secret.keyId]);
    expect(() => loggedIds(known.slice(2), "abcd", secret)).toThrow(Fault);
    expect(loggedIds(known, "gate", { ...secret, name: "gate" }) as unknown).toEqual([secret.keyId, ...short(0, 1)]);
  });
});
