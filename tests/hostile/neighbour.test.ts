import { afterEach, beforeEach, expect, test } from "bun:test";
import { type KeyId, newId, type RequestId, type SessionId } from "../../src/ids.ts";
import type { LeafRecord } from "../../src/protocol/leaf.ts";
import { WRAPPED_BYTES } from "../../src/protocol/secret.ts";
import { type InputOf, operations, type SessionOperation } from "../../src/wire/operations.ts";
import { call, logInRaw, logOf, type RawOwner, type RawSession, registerRaw, storeRaw } from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { type FileStore, fileStore, hookedStore, recorder } from "../support/storeprobe.ts";

/**
 * Another registered user (docs/threat-model.md, adversary E), with every operation of a session: her ids and ones
 * that nobody has are answered alike in code, status, text and length, and cost the same statements of the store.
 */

interface Ids {
  readonly keyId: KeyId;
  readonly sessionId: SessionId;
  readonly requestId: RequestId;
}

type Ask<N extends SessionOperation> = (ids: Ids) => InputOf<N>;
/** How an operation takes another's id; words say why it is not asked here. */
const ASKS: { readonly [N in SessionOperation]: Ask<N> | "none" | "commit" | "federation" | "registry" | "keystore" } =
  {
    "session.check": "none",
    "session.list": "none",
    "session.close": ({ sessionId }) => ({ sessionId, all: false }),
    "account.device.add": "none",
    "account.password.start": "none",
    "account.password": "none",
    "account.rotate": "none",
    "account.wraps": ({ keyId }) => ({ after: { keyId, kind: "value", number: 1 } }),
    "account.rewrap": ({ keyId }) => ({
      items: [{ keyId, kind: "value", number: 1, wrapped: new Uint8Array(WRAPPED_BYTES).fill(1) }],
    }),
    "account.kit": "none",
    "account.reregister": "none",
    "session.factor": "none",
    "account.factor": "none",
    "account.factor.enable": "none",
    "account.factor.codes": "none",
    "account.factor.disable": "none",
    "account.parcel": "none",
    "account.parcel.put": "none",
    "account.device.link": "none",
    "account.delete": "none",
    "account.adopt": "none",
    "log.proof": "none",
    "state.sync": ({ keyId }) => ({ since: 0, after: keyId, what: "leaves" }),
    "secret.list": ({ keyId }) => ({ since: 0, after: keyId, what: "leaves" }),
    "secret.reserve": "none",
    // tests/server/neighbour.test.ts
    "secret.generate": "commit",
    "secret.store": "commit",
    "secret.import": "commit",
    "secret.update": "commit",
    "secret.restore": "commit",
    "secret.remove": "commit",
    "secret.purge": "commit",
    "secret.get": ({ keyId }) => ({ keys: [{ keyId, version: 1 }] }),
    "secret.export": ({ keyId }) => ({ keys: [{ keyId, version: 1 }] }),
    "secret.history": ({ keyId }) => ({ keyId, afterSerial: 0 }),
    "audit.list": (ids) => ({ ...ANY, keyId: ids.keyId, requestId: ids.requestId }),
    "audit.verify": (ids) => ({ ...ANY, keyId: ids.keyId, requestId: ids.requestId }),
    "audit.export": (ids) => ({ ...ANY, keyId: ids.keyId, requestId: ids.requestId }),
    // tests/server/federation/neighbour.test.ts
    "federation.enrol": "federation",
    "federation.submit": "federation",
    "federation.request": "federation",
    "federation.requests": "federation",
    "federation.begin": "federation",
    "federation.relay": "federation",
    "federation.decide": "federation",
    "federation.vote": "federation",
    "federation.keys": "federation",
    "federation.key": "federation",
    "federation.inform": "federation",
    "federation.policies": "federation",
    "federation.policy": "federation",
    "federation.policy.set": "federation",
    // tests/server/keyring/neighbour.test.ts
    "keyring.enrol": "registry",
    "workspace.create": "registry",
    "workspace.list": "registry",
    "workspace.get": "registry",
    "workspace.policy": "registry",
    "workspace.policy.set": "registry",
    "workspace.ledger": "registry",
    "workspace.events": "registry",
    "workspace.inbox": "registry",
    "workspace.token.create": "registry",
    "workspace.token.list": "registry",
    "workspace.token.revoke": "registry",
    "keyring.create": "registry",
    "keyring.list": "registry",
    "keyring.get": "registry",
    "keyring.change": "registry",
    "keyring.request": "registry",
    "keyring.request.get": "registry",
    "keyring.requests": "registry",
    "keyring.vote": "registry",
    "keyring.cancel": "registry",
    "keyring.finish": "registry",
    "keyring.keys": "registry",
    "keyring.key": "registry",
    "party.tasks": "registry",
    "party.report": "registry",
    // tests/server/otp/neighbour.test.ts
    "otp.create": "keystore",
    "otp.entries": "keystore",
    "otp.grant": "keystore",
    "otp.revoke": "keystore",
    "otp.handouts": "keystore",
    "otp.request": "keystore",
    "otp.check": "keystore",
    "otp.token.create": "keystore",
    "otp.token.list": "keystore",
    "otp.token.revoke": "keystore",
    "otp.send": "keystore",
    "otp.receive": "keystore",
    // tests/server/ceremony: who knows a ceremony's id may read all of it (docs/protocol.md §10.4)
    "ceremony.open": "keystore",
    "ceremony.list": "keystore",
    "ceremony.seat": "keystore",
    "ceremony.close": "keystore",
  };

const ANY = { after: 0, limit: 100, keyId: null, action: null, fromMs: null, untilMs: null, requestId: null } as const;

const hooked = hookedStore();
let file: FileStore;
let server: TestServer;
let alice: RawOwner;
let alices: RawSession;
let bob: RawOwner;
let bobs: RawSession;
let hers: LeafRecord;

beforeEach(async () => {
  file = fileStore();
  server = await startTestServer({ path: file.path, wrap: hooked.wrap });
  alice = await registerRaw(server, "alice");
  bob = await registerRaw(server, "bob");
  alices = await logInRaw(server, "alice", alice.password);
  hers = await storeRaw(server, alices, alice);
  bobs = await logInRaw(server, "bob", bob.password);
  await call(server, bobs, "session.check", {});
});
afterEach(async () => {
  hooked.hook = null;
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

test("every operation of a session is in the table", () => {
  const all = Object.entries(operations).flatMap(([name, { auth }]) => (auth === "session" ? [name] : []));
  expect(Object.keys(ASKS).sort()).toEqual(all.sort());
});

const ASKED = Object.entries(ASKS).flatMap(([name, ask]) =>
  typeof ask === "function" ? [[name as SessionOperation, ask as Ask<SessionOperation>] as const] : [],
);

test.each(ASKED)("%s answers another's ids like ids of nobody", async (operation, ask) => {
  const requestId = (await logOf(server, alice.userId)).find(({ action }) => action === "secret.store")?.requestId;
  if (!requestId) throw new Error("she stored nothing");
  const nobodys = {
    keyId: newId<KeyId>(random),
    sessionId: newId<SessionId>(random),
    requestId: newId<RequestId>(random),
  };
  const before = file.dump("session", "audit_entry", "audit_head", "request");
  const answers: object[] = [];
  // twice: the first call of an operation may fill a cache
  for (const ids of [nobodys, { keyId: hers.keyId, sessionId: alices.sessionId, requestId }, nobodys]) {
    const record = recorder();
    hooked.hook = record.hook;
    const answer = await call(server, bobs, operation, ask(ids));
    hooked.hook = null;
    const { status, sealed, code, text } = answer;
    const entries = await logOf(server, bob.userId, answer.requestId);
    answers.push({ status, sealed, code, text, lines: record.lines, noted: entries.map(({ status: s }) => s) });
  }
  const [, real, fake] = answers;
  // her ids do not sort where a made-up one does: what is shown behind them is bob's alone either way
  expect(real).toEqual(fake as object);
  expect(file.dump("session", "audit_entry", "audit_head", "request")).toBe(before);
  expect((await call(server, alices, "session.check", {})).code).toBe("ok");
});
