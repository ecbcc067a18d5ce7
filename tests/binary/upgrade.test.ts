import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, mkdirSync, readlinkSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { compile } from "../../scripts/compile.ts";
import { agentClient, agentFacts, agentSocket } from "../../src/client/agent.ts";
import { AGENT_METHODS, type AgentMethod } from "../../src/client/agentapi.ts";
import type { KeyholdClient } from "../../src/client/api.ts";
import { rejected } from "../support/hostile.ts";
import { type Home, openWorld, SETUP_MS, type World } from "./world.ts";

/*
 * An agent goes on while the executable that it was started from is replaced and deleted: what it loads late must not
 * come from that file any more.
 */

const PROJECT = join(import.meta.dir, "..", "..");
let world: World;
let home: Home;
/** The two versions, and where the one that runs is installed. */
let older: string;
let newer: string;
let installed: string;

setDefaultTimeout(60_000);
beforeAll(async () => {
  world = await openWorld();
  const entry = join(PROJECT, "src", "main.ts");
  older = join(world.file("older"), "keyhold");
  newer = join(world.file("newer"), "keyhold");
  await compile({ entry, outfile: older, version: "7.0.1", commit: "older" });
  await compile({ entry, outfile: newer, version: "7.0.2", commit: "newer" });
  const place = world.file("installed");
  mkdirSync(place);
  installed = join(place, "keyhold");
  home = await world.home("ada").register("ada", { login: false });
}, SETUP_MS);
afterAll(() => world.close());

/** Puts a version where programs are installed, as a package manager does: beside it first, then in its place. */
function install(version: string): void {
  copyFileSync(version, `${installed}.new`);
  renameSync(`${installed}.new`, installed);
}

const socketOf = (of: Home) => agentSocket(join(of.dir, "run"), "default");
const versionOf = async (of: Home) => (await agentFacts(socketOf(of)))?.version;

/** Every method of the agent, those that load code late and those that start workers among them. */
async function useEverything(tag: string): Promise<void> {
  const client = agentClient(socketOf(home), () => undefined);
  const used = new Set<string>();
  const watched = new Proxy(client, {
    get(target, name: string) {
      used.add(name);
      return Reflect.get(target, name);
    },
  });
  const text = (value: string) => new TextEncoder().encode(value);
  const shape = { length: null, tags: [], replace: false, where: null };
  const name = (what: string) => `${tag}/${what}`;
  for (const type of ["ed25519", "p384", "password", "passphrase", "totp", "ssh", "bip39"] as const) {
    await watched.generate({ name: name(type), type, ...shape });
  }
  await watched.generate({ name: name("rsa"), type: "rsa", ...shape, length: 2_048 });
  for (const key of ["ed25519", "p384", "rsa"]) {
    const signed = await watched.sign({ name: name(key), version: null, message: text("m"), scheme: null });
    expect(signed.signature.length).toBeGreaterThan(60);
  }
  const stanzas = [{ args: ["X25519", "A".repeat(43)], body: new Uint8Array(32) }];
  await rejected(watched.unwrapFileKey({ name: name("ed25519"), version: null, stanzas }), "bad_input");
  expect((await watched.otp({ name: name("totp"), fresh: false })).code).toMatch(/^\d{6}$/);
  await watched.store({ name: name("note"), type: null, value: text("one"), tags: [], where: null });
  await watched.store({ name: name("note"), type: null, value: text("two"), tags: ["t"], where: null });
  await watched.restore({ name: name("note"), version: 1 });
  const got = await watched.get({ name: name("note"), version: null, reveal: true, fresh: true, save: true });
  expect(got.value).toEqual(text("one"));
  const refs = [{ name: name("note"), version: 2 }];
  expect((await watched.getMany({ refs, fresh: false, purpose: "get" }))[0]?.value).toEqual(text("two"));
  await watched.history({ name: name("note") });
  await watched.rename({ from: name("note"), to: name("noted") });
  await watched.tag({ name: name("noted"), add: ["u"], remove: [] });
  await watched.remove({ name: name("noted"), purge: true });
  const item = { name: name("imported"), type: "note" as const, value: text("x"), tags: [], createdAt: null };
  await watched.importItems({ items: [item], prefix: "", dryRun: false, origin: "json", where: null });
  const { handle } = await watched.fileBegin({ name: name("file"), tags: [], where: null, size: null });
  const big = new Uint8Array(300_000).fill(9);
  await watched.fileAppend({ handle, value: big });
  await watched.fileFinish({ handle });
  const opened = await watched.fileOpen({ name: name("file"), version: null, fresh: false, purpose: "get" });
  expect((await watched.fileRead({ handle: opened.handle })).value[0]).toBe(9);
  await watched.fileAbort({ handle: opened.handle });
  await watched.report({ oldDays: null, fresh: false });
  const page = { name: null, action: null, fromMs: null, untilMs: null, requestId: null, limit: null, cursor: null };
  expect((await watched.auditList({ ...page, purpose: "list" })).items.length).toBeGreaterThan(5);
  expect((await watched.auditVerify()).ok).toBe(true);
  await watched.auditExport({ cursor: null });
  expect((await watched.sessions()).items.length).toBeGreaterThan(0);
  await watched.devices();
  await watched.linkDevice();
  await watched.sync();
  await watched.keepCopies();
  expect(await watched.factor()).toMatchObject({ enabled: false, proven: false });
  const factor = { key: new Uint8Array(20), code: "0", recovery: [], proof: null };
  await rejected(watched.enableFactor(factor), "factor_failed");
  await rejected(watched.renewFactorCodes({ proof: null }), "not_found");
  expect((await watched.disableFactor({ proof: null })).disabled).toBe(false);
  await useFederations(watched);
  await useKeyrings(watched);
  await useCeremonies(watched);
  expect((await watched.status()).session?.valid).toBe(true);
  const all = Object.keys(AGENT_METHODS) as AgentMethod[];
  await watched.list({ prefix: `${tag}/`, search: null, tag: null, fresh: true });
  expect(all.filter((method) => !used.has(method) && method !== "closeSession")).toEqual([]);
}

/** What needs a federation has none here: it says so with code that was loaded late, nothing else. */
async function useFederations(client: KeyholdClient): Promise<void> {
  expect(await client.federations()).toEqual([]);
  expect(await client.federatedKeys()).toEqual([]);
  expect(await client.federatedRequests()).toEqual([]);
  expect(await client.approvals()).toEqual([]);
  const [federation, key, requestId] = ["none", "none", "ab".repeat(32)];
  const purpose = { name: key, federation, type: "ed25519", bytes: 32, custody: "self", policy: null } as const;
  const wanted = { ...purpose, control: "unilateral" } as const;
  const server = { url: "https://127.0.0.1:1", pin: `sha256:${"A".repeat(43)}` };
  await rejected(client.createFederation({ name: "none", threshold: 2, servers: [server, server] }), "unreachable");
  await rejected(client.joinFederation({ ...server, name: null, invites: [] }), "unreachable");
  for (const refused of [
    () => client.checkFederation({ federation }),
    () => client.auditFederation({ federation }),
    () => client.policies({ federation }),
    () => client.setPolicy({ federation, document: {} }),
    () => client.federatedKey({ key }),
    () => client.generateFederated(wanted),
    () => client.importFederated({ ...wanted, value: new Uint8Array(32).fill(7) }),
    () => client.signFederated({ key, message: new Uint8Array(3), amount: null }),
    () => client.releaseFederated({ key, purpose: "export" }),
    () => client.reshareFederated({ key, mode: "repair", threshold: null, holders: null }),
    () => client.federatedRequest({ requestId }),
    () => client.continueRequest({ requestId }),
    () => client.cancelRequest({ requestId }),
    () => client.vote({ requestId, verdict: "reject", reason: "no" }),
  ]) {
    await rejected(refused(), "not_found");
  }
}

/** The server here is no registry: each call says so, with code that was loaded late, nothing else. */
async function useKeyrings(client: KeyholdClient): Promise<void> {
  const [workspace, keyring, key, requestId, name] = ["none", "none", "ab".repeat(32), "ab".repeat(32), "none"];
  const item = { key, form: "message", message: new Uint8Array(3), input: 0, amount: null } as const;
  const fees = { key: 1, signature: 1 };
  for (const refused of [
    () => client.keyringOwner(),
    () => client.workspaces(),
    () => client.workspace({ workspace }),
    () => client.createWorkspace({ name, owners: [], self: "me", admin: 1, sign: 1 }),
    () => client.changeWorkspace({ workspace, change: { kind: "ownerRemoved", name } }),
    () => client.workspaceLedger({ workspace }),
    () => client.workspaceEvents({ workspace, after: 0 }),
    () => client.createToken({ workspace, name, expiresInMs: 60_000 }),
    () => client.tokens({ workspace }),
    () => client.revokeToken({ workspace, tokenId: "none" }),
    () => client.keyrings(),
    () => client.keyring({ keyring }),
    () => client.changeKeyring({ keyring, change: { kind: "active", active: false } }),
    () => client.requestKey({ workspace, keyring, type: "ed25519" }),
    () => client.requestSignatures({ items: [item] }),
    () => client.keyringRequests({ workspace, status: null }),
    () => client.keyringRequest({ requestId }),
    () => client.continueKeyringRequest({ requestId }),
    () => client.cancelKeyringRequest({ requestId }),
    () => client.voteKeyring({ requestId, verdict: "reject", reason: "no" }),
    () => client.keyringKeys({ workspace, keyring: null, type: null }),
    () => client.keyringKey({ key }),
    () => client.keyringAddress({ key, kind: "solana", network: null, prefix: null }),
  ]) {
    await rejected(refused(), "unsupported");
  }
  // without an owner key nothing waits for this account
  expect(await client.keyringInbox()).toEqual([]);
  await rejected(client.createKeyring({ name, federation: name, threshold: null, fees, parties: [] }), "not_found");
}

/** Of ceremonies and one-time codes the account has none: each call says so, with code that was loaded late. */
async function useCeremonies(client: KeyholdClient): Promise<void> {
  const [ceremony, key, askId] = ["none", "none", "ab".repeat(32)];
  const server = { url: "https://127.0.0.1:1", pin: `sha256:${"A".repeat(43)}` };
  const invite = "keyhold-ceremony:none";
  const output = { kind: "hedge" } as const;
  const policy = { collect: "nobody", quorum: 0 } as const;
  const stage = { commitMs: 60_000, revealMs: 60_000 };
  const opening = {
    name: "none",
    purpose: "none",
    output,
    policy,
    ...stage,
    minimum: null,
    again: null,
    replace: false,
  };
  const joining = { ceremony: null, function: "hkdf-sha256", mixed: [], suite: "hpke" } as const;
  expect(await client.ceremonies()).toEqual([]);
  expect(await client.ceremonyOwn({ ceremonyId: askId })).toBeNull();
  expect((await client.otpDevice()).words).toHaveLength(6);
  expect(await client.otpEntries()).toEqual([]);
  for (const refused of [
    () => client.ceremonyOpen({ ...opening, seats: [{ name: "alone", account: null }] }),
    () => client.ceremonyLook({ invite }),
    () => client.ceremonyJoin({ ...joining, invite }),
    () => client.otpCreate({ name: "none", output: null, from: null }),
    () => client.otpReceive({ parcel: new Uint8Array(8) }),
    () => client.otpVerify({ server, token: "", code: "123456" }),
  ]) {
    await rejected(refused(), "bad_input");
  }
  for (const refused of [
    () => client.ceremony({ ceremony }),
    () => client.ceremonyInvites({ ceremony }),
    () => client.ceremonyAdvance({ ceremony }),
    () => client.ceremonyClose({ ceremony, abort: true }),
    () => client.ceremonyTranscript({ ceremony }),
    () => client.ceremonyOpening({ ceremony }),
    () => client.ceremonyCollect({ ceremony }),
    () => client.ceremonyApprove({ ceremony, releaseHex: "ab" }),
    () => client.otpGrant({ key, to: { kind: "account", name: "x" }, wants: ["code"], perHour: null, untilMs: null }),
    () => client.otpRevoke({ key, grantId: null, askId: null }),
    () => client.otpHandouts({ key }),
    () => client.otpRequest({ key, want: "code", server: null }),
    () => client.otpCheck({ key, code: "123456", next: null }),
    () => client.otpTokenCreate({ key, name: "none", untilMs: 1 }),
    () => client.otpTokens({ key }),
    () => client.otpTokenRevoke({ key, tokenId: askId }),
  ]) {
    await rejected(refused(), "not_found");
  }
  await rejected(client.otpSend({ key, server }), "unreachable");
}

test("every method works after the executable was replaced, and after it was deleted", async () => {
  install(older);
  const limits = ["--for", "3h", "--idle", "2h", "--confirm", "always"];
  // the program that says yes is started by an agent whose own file has gone
  const env = { KEYHOLD_CONFIRM_COMMAND: "true" };
  await home.ok(["login", ...home.password, "--kdf", "test", ...limits], { program: installed, env });
  const facts = await agentFacts(socketOf(home));
  expect(facts).toMatchObject({
    version: "7.0.1",
    idleMs: 7_200_000,
    confirm: { patterns: ["*"], program: true },
  });
  const lives = Date.parse(facts?.endsAt ?? "") - Date.parse(facts?.startedAt ?? "");
  // each is read off the clock by itself
  expect(Math.round(lives / 1_000)).toBe(10_800);
  // before anything was loaded late
  install(newer);
  expect(readlinkSync(`/proc/${facts?.pid}/exe`)).toEndWith(" (deleted)");
  await useEverything("replaced");
  // the newer program's commands, with the older agent
  await home.ok(["store", "by-newer", "--in-file", world.file("value", "v")], { program: installed });
  expect((await home.run(["read", "by-newer"], { program: installed })).out).toBe("v");
  expect((await home.ok(["agent", "status"], { program: installed })).data).toMatchObject({ version: "7.0.1", api: 1 });
  rmSync(installed);
  await useEverything("deleted");
  expect((await agentFacts(socketOf(home)))?.pid).toBe(facts?.pid ?? 0);
});

test("unlock puts an agent of the installed version in its place; an older program can use the newer agent", async () => {
  install(newer);
  await home.ok(["unlock", ...home.password, "--kdf", "test"], { program: older });
  expect(await versionOf(home)).toBe("7.0.1");
  await home.ok(["unlock", ...home.password, "--kdf", "test"], { program: installed });
  expect(await versionOf(home)).toBe("7.0.2");
  expect((await home.ok(["list"], { program: older })).data.items.length).toBeGreaterThan(0);
  await home.ok(["lock"], { program: older });
  expect(await versionOf(home)).toBeUndefined();
});
