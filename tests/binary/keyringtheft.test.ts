import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedKeyId, FederatedRequestId, KeyringRequestId, WorkspaceId } from "../../src/ids.ts";
import { pointOf } from "../../src/protocol/federation/owner.ts";
import { type PolicyDocument, policyIdOf } from "../../src/protocol/federation/policy.ts";
import { signPolicy } from "../../src/protocol/federation/policychain.ts";
import { registryScope, requestIdOf, type SignedRequest, signOrder } from "../../src/protocol/federation/request.ts";
import { signVote } from "../../src/protocol/federation/votes.ts";
import { ASKED } from "../../src/server/keyring/requestdocuments.ts";
import { memoryHolds } from "../supply/processes.ts";
import { random } from "../support/harness.ts";
import { testUnless } from "../support/skip.ts";
import {
  candidates,
  crack,
  type Loot,
  type OpenedShare,
  occurs,
  openShares,
  readings,
  shareAt,
  steal,
} from "./federationloot.ts";
import {
  asked,
  forKey,
  fulfilled,
  INDICES,
  type Keyrings,
  keysAtServers,
  keysOf,
  lifeOf,
  openKeyrings,
  short,
  shown,
  storedIn,
} from "./keyringfleet.ts";
import {
  type Account,
  connectorAccount,
  keyBody,
  manifestOf,
  newAccount,
  registryKeys,
  signedItem,
} from "./keyringsession.ts";
import { SETUP_MS } from "./world.ts";

/** Whoever took the registry: neither what lies there nor its signature makes a key or a signature (docs/protocol.md §9.2). */

setDefaultTimeout(60_000);

let all: Keyrings;
let registry: Uint8Array;
/** Sessions that are closed at the end. */
const accounts: Account[] = [];
const entered = async (account: Promise<Account>): Promise<Account> => {
  const opened = await account;
  accounts.push(opened);
  return opened;
};
beforeAll(async () => {
  all = await openKeyrings();
  ({ registry } = await registryKeys(all));
}, SETUP_MS);
afterAll(async () => {
  for (const one of accounts) one.end();
  await all?.close();
});

const TYPES = ["ed25519", "schnorr", "secp256k1"] as const;

const faultOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (error: unknown) => (error instanceof Fault ? error.code : String(error)),
  );

/** The item of a request of one item, as the registry knows it. */
function itemOf(requestId: string): FederatedRequestId {
  const [item, another] = lifeOf(all, requestId).items;
  if (!item || another) throw new Error("not one item");
  return item.itemId;
}

describe("a thief of the registry", () => {
  let loot: Loot;
  let haystack: readonly Uint8Array[];

  beforeAll(async () => {
    const had = new Set((await keysOf(all)).map(({ type }) => type));
    for (const type of TYPES) if (!had.has(type)) await fulfilled(all, forKey(type));
    const keys = await keysOf(all);
    const file = all.fleet.world.file("signed-by-all", "by every key once");
    const named = TYPES.map((type) => keys.find((one) => one.type === type)?.keyId ?? "");
    await fulfilled(all, ["signature", ...named.flatMap((id) => ["--key", id]), "--message-file", file]);
    const to = join(all.fleet.world.dir, "stolen-registry");
    mkdirSync(to, { mode: 0o700 });
    loot = steal(all.registry.dir, to);
    haystack = readings([...loot.pieces, new TextEncoder().encode(all.registry.server().log())]);
  }, SETUP_MS);

  /** Every live share of every key, as the three servers' own sealing keys open them. */
  async function sharesOfAll() {
    const opened: OpenedShare[] = [];
    for (const index of INDICES) {
      const to = join(all.fleet.world.dir, `opened-${index}-${random(4).toHex()}`);
      mkdirSync(to, { mode: 0o700 });
      opened.push(...(await openShares(steal(all.fleet.dirs[index] ?? "", to))));
    }
    const certificates = new Map(opened.map(({ certificate }) => [certificate.keyId, certificate]));
    return [...certificates.values()].map((certificate) => {
      const own = opened.filter((one) => one.certificate.keyId === certificate.keyId);
      const whole = shareAt(certificate.type, own.slice(0, 2), 0);
      return { certificate, own, whole };
    });
  }

  test("has the directory, the database and the log: no share, and no key, alone or put together", async () => {
    const found = await sharesOfAll();
    expect(new Set(found.map(({ certificate }) => certificate.type))).toEqual(new Set(TYPES));
    const tried = candidates(haystack);
    expect(tried.length).toBeGreaterThan(100);
    for (const { certificate, own, whole } of found) {
      const { type, publicKey } = certificate;
      // what is looked for is what it should be, and the certificate lies there for everyone
      expect(own).toHaveLength(3);
      expect(pointOf(type, whole)).toEqual(publicKey);
      expect(haystack.some((hay) => Buffer.from(hay).includes(publicKey.slice(-32)))).toBe(true);
      for (const secret of [whole, ...own.map(({ share }) => share)])
        expect(occurs(haystack, type, secret)).toBe(false);
      expect(crack(certificate, [], tried.slice(0, 100))).toBeNull();
    }
  });

  const reason =
    process.platform === "linux" && process.getuid?.() === 0 ? undefined : "needs root to read another's memory";
  testUnless(reason, "reads the memory of the process: no share, and no key", async () => {
    const secrets = (await sharesOfAll()).flatMap(({ own, whole }) => [whole, ...own.map(({ share }) => share)]);
    const encode = (text: string) => new TextEncoder().encode(text);
    const wanted = secrets.flatMap((bytes) => [
      bytes,
      bytes.toReversed(),
      encode(bytes.toHex()),
      encode(bytes.toBase64({ alphabet: "base64url", omitPadding: true })),
    ]);
    const { pid, port } = all.registry.server();
    const [address, ...found] = memoryHolds(pid, [encode(`127.0.0.1:${port}`), ...wanted]);
    expect(address).toBe(true);
    expect(found).toEqual(wanted.map(() => false));
  });

  test("signs with the registry's identity, and brings it as a connector: every server refuses", async () => {
    const seed = new Uint8Array(readFileSync(join(loot.dir, "keys", "identity.ed25519")));
    const identity = signerFromSeed(seed);
    expect(identity.publicKey).toEqual(registry);
    const { sealing } = await registryKeys(all);
    const [key] = (await all.ann.ok(["workspace", "keys", "treasury", "--type", "ed25519"])).data.items;
    const scope = registryScope(registry);
    const workspaceId = all.workspaceId as WorkspaceId;
    const terms = { registry, workspaceId, lastsMs: 600_000 };
    const use = {
      kind: "sign",
      keyId: key.keyId as FederatedKeyId,
      generation: 0,
      form: "message",
      input: 0,
      message: new TextEncoder().encode("everything to the thief"),
      amount: null,
      recipient: sealing,
    } as const;
    // a workspace of its own, of which it is the only owner
    const thief = signerFromSeed(random(32));
    const alone = { kind: "approver", name: "thief" } as const;
    const document: PolicyDocument = {
      federationId: scope,
      name: "treasury",
      version: 1,
      previous: new Uint8Array(32),
      approvers: [{ name: "thief", key: thief.publicKey }],
      groups: [],
      remotes: [],
      admins: alone,
      rules: [
        {
          name: "all",
          effect: "allow",
          actions: ["generate", "sign", "release"],
          types: [],
          rate: null,
          amount: null,
          recipients: null,
          time: null,
          require: alone,
          requesterMayApprove: true,
          voteMs: 86_400_000,
        },
      ],
      createdAtMs: 0,
    };
    const own = policyIdOf(document);
    // what ann has asked for and ben has not agreed to lies in the registry's database
    const waiting = itemOf(await asked(all.ann, forKey("schnorr")));
    const [open] = storedIn(all.registry.dir, ASKED).filter(({ id }) => id === waiting);
    if (!open) throw new Error("no such item");
    const itself = "bad_input: this request cannot be: a registry asks for nothing itself";
    const stolen: readonly (readonly [SignedRequest, submitted: string, begun: string])[] = [
      [signedItem(all, identity, terms, use), itself, "not_found"],
      [signedItem(all, identity, terms, keyBody("ed25519", workspaceId)), itself, "not_found"],
      // so it takes an owner key of its own
      [signedItem(all, thief, terms, use), "rejected", "denied"],
      [signedItem(all, thief, terms, keyBody("ed25519", workspaceId)), "rejected", "denied"],
      // and the key of the others in a workspace of its own
      [
        signedItem(all, thief, { ...terms, workspaceId: own }, use),
        "bad_input: this request cannot be: this key is not the workspace's",
        "not_found",
      ],
      [open.value.request, "awaiting_approval", "pending"],
    ];
    const before = keysAtServers(all);
    for (const index of INDICES) {
      const account = await entered(connectorAccount(all, index));
      // whoever is a registry can found workspaces; they are of no use for keys of another one
      const policy = { document, signatures: [signPolicy(thief, document)] };
      expect(await faultOf(account.call("federation.policy.set", { policy }))).toBe("done");
      for (const [request, submitted, begun] of stolen) {
        const answer = await account.call("federation.submit", { request, label: null }).then(
          ({ status }) => status,
          (error: unknown) => (error instanceof Fault ? `${error.code}: ${error.message}` : String(error)),
        );
        expect([index, answer]).toEqual([index, submitted]);
        const order = signOrder(identity, {
          requestId: requestIdOf(request.request),
          attempt: 1,
          roster: INDICES,
          contributions: INDICES.map((to) => ({ index: to, sealed: random(80) })),
          ownerNonces: null,
        });
        expect([index, submitted, await faultOf(account.call("federation.begin", { order }))]).toEqual([
          index,
          submitted,
          begun,
        ]);
      }
    }
    expect(keysAtServers(all)).toEqual(before);
  });

  test("votes for the owners with it: the votes count for nothing", async () => {
    const identity = signerFromSeed(new Uint8Array(readFileSync(join(loot.dir, "keys", "identity.ed25519"))));
    const id = await asked(all.ann, forKey("schnorr"));
    const { federationId, epoch } = manifestOf(all);
    const account = await entered(newAccount(all, "owner"));
    const castAtMs = Date.now();
    const vote = signVote(identity, {
      federationId,
      epoch,
      requestId: itemOf(id),
      verdict: "approve",
      policyHash: new Uint8Array(32),
      castAtMs,
      expiresAtMs: castAtMs + 60_000,
      reason: "",
    });
    const given = { requestId: id as KeyringRequestId, votes: [vote] };
    expect(await faultOf(account.call("keyring.vote", given))).toBe("not_found");
    expect(await shown(all.ann, id)).toMatchObject({ status: "pending", approved: false, votes: [{ owner: "ann" }] });
    await all.ann.ok(["request", "cancel", short(id), "--yes"]);
  });
});
