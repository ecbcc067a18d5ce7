import { expect, test } from "bun:test";
import type { HeldFederation } from "../../../src/client/federation/held.ts";
import { Fault } from "../../../src/errors.ts";
import {
  type Manifest,
  manifestHash,
  type SignedManifest,
  signManifest,
} from "../../../src/protocol/federation/manifest.ts";
import { keyringIdOf } from "../../../src/protocol/keyring/keyring.ts";
import { keyWorld } from "../../protocol/federation/keyworld.ts";
import { rejected } from "../../support/hostile.ts";
import { seedOf } from "../../support/policies.ts";
import { type Person, REGISTRY_URL, scripted } from "./scripted.ts";

async function start() {
  const world = await scripted();
  const ada = world.person("ada");
  await ada.client.keyringOwner();
  await ada.client.createWorkspace({ name: "treasury", owners: [], self: "ada", admin: 1, sign: 1 });
  const { signers } = await keyWorld({ type: "ed25519", seed: 7 });
  /** The next epoch of the federation, signed by all its servers. */
  const after = (before: Manifest, change: Partial<Manifest> = {}): SignedManifest => {
    const manifest = { ...before, epoch: before.epoch + 1, previous: manifestHash(before), ...change };
    return { manifest, signatures: [...signers.values()].map((signer) => signManifest(signer, manifest)) };
  };
  const show = (manifest: SignedManifest) => {
    world.keyring.view = { ...world.keyring.view, manifest };
  };
  return { world, ada, after, show };
}

const ask = ({ client }: Person) => client.requestKey({ workspace: "treasury", keyring: "vault", type: "ed25519" });

const joined = (person: Person, manifests: readonly SignedManifest[]): void => {
  const [first] = manifests;
  if (!first) throw new Error("no manifest");
  const { federationId, name } = first.manifest;
  const federation: HeldFederation = {
    federationId,
    name,
    manifests: [...manifests],
    joinedAtMs: 1,
    servers: [],
    policies: [],
  };
  person.held = { ...person.held, federations: [federation] };
};

test("a later epoch that follows is taken over, and keys of the one before still verify", async () => {
  const { world, ada, after, show } = await start();
  const { requestId } = await ask(ada);
  const { certificate } = await world.makeKey(requestId);
  const next = after(world.manifest.manifest);
  show(next);
  await ask(ada);
  expect(ada.held.keyringPins[0]?.manifests.map(({ manifest }) => manifest.epoch)).toEqual([1, 2]);
  const asked = [...world.requests.values()].at(-1)?.items[0]?.request.request;
  expect(asked?.epoch).toBe(2);
  expect((await ada.client.keyringKey({ key: certificate.keyId })).confirmedBy).toHaveLength(3);
});

test("an epoch that does not follow, one that goes back, and another federation are refused", async () => {
  const { world, ada, after, show } = await start();
  await ask(ada);
  const first = world.manifest.manifest;
  const next = after(first);
  for (const wrong of [
    after(first, { previous: seedOf("elsewhere") }),
    { ...next, signatures: [] },
    after(first, { threshold: 1 }),
    { ...next, manifest: { ...next.manifest, federationId: "ab".repeat(32) as Manifest["federationId"] } },
  ]) {
    show(wrong);
    expect((await rejected(ask(ada), "integrity")).culprits).toEqual([REGISTRY_URL]);
  }
  show(next);
  await ask(ada);
  show(world.manifest);
  await rejected(ask(ada), "integrity");
  await rejected(ada.client.keyring({ keyring: "vault" }), "integrity");
});

test("an epoch in between is fetched from the federation's own servers; without them nothing is taken over", async () => {
  const { world, ada, after, show } = await start();
  await ask(ada);
  const second = after(world.manifest.manifest);
  const third = after(second.manifest);
  show(third);
  await rejected(ask(ada), "unavailable");
  const asked: string[] = [];
  Object.assign(ada.ground, {
    manifestsFrom: (servers: readonly { url: string }[]) =>
      servers.map(({ url }) => async (_id: string, epoch: number) => {
        asked.push(`${url} ${epoch}`);
        return url === "https://s2.test" && epoch === 2 ? second : null;
      }),
  });
  await ask(ada);
  expect(asked).toEqual(["https://s1.test 2", "https://s2.test 2"]);
  expect(ada.held.keyringPins[0]?.manifests).toHaveLength(3);
});

test("what the vault has joined is held against the keyring, before anything is pinned", async () => {
  const { world, ada, after, show } = await start();
  joined(ada, [world.manifest]);
  await ada.client.keyring({ keyring: "vault" });
  const { manifest } = world.manifest;
  const other = { ...manifest, threshold: 3 };
  show({ manifest: other, signatures: world.manifest.signatures });
  await rejected(ada.client.keyring({ keyring: "vault" }), "integrity");
  show(after(manifest));
  expect((await ada.client.keyring({ keyring: "vault" })).federation).toBe("custody");
  expect(ada.held.keyringPins).toEqual([]);
});

test("another keyring under the name of the one that was used is not taken for it, and owners who vote are told", async () => {
  const { world, ada } = await start();
  const bob = world.person("bob");
  const { keyHex } = await bob.client.keyringOwner();
  const change = { kind: "ownerAdded", name: "bob", keyHex } as const;
  await ada.client.changeWorkspace({ workspace: "treasury", change });
  const quorums = { kind: "quorums", admin: null, sign: 2 } as const;
  await ada.client.changeWorkspace({ workspace: "treasury", change: quorums });
  const { requestId } = await ask(ada);
  expect((await bob.client.voteKeyring({ requestId, verdict: "approve", reason: "" })).keyring).toBe("vault");
  const genuine = world.keyring.view;
  const other = { ...genuine, keyringId: keyringIdOf(world.registry.publicKey, "vault", seedOf("another")) };
  // the registry lists another one instead, and hides the first
  world.meddle = (name, output, input) => {
    if (name === "keyring.list") return { items: [other], more: false };
    if (name !== "keyring.get") return output;
    if ((input as { keyringId: string }).keyringId === other.keyringId) return other;
    throw new Fault("not_found", "no such keyring");
  };
  expect((await rejected(ask(ada), "not_found")).why).toContain(genuine.keyringId);
  expect(world.requests.size).toBe(1);
  // beside the first one it is no less another: its name means the one that is known
  world.meddle = (name, output, input) => {
    if (name === "keyring.list") return { items: [other, genuine], more: false };
    return name === "keyring.get" && (input as { keyringId: string }).keyringId === other.keyringId ? other : output;
  };
  expect((await ada.client.keyring({ keyring: "vault" })).keyringId).toBe(genuine.keyringId);
  const asked = await ada.client.requestKey({ workspace: "treasury", keyring: other.keyringId, type: "ed25519" });
  const waiting = await bob.client.keyringInbox();
  expect(waiting.map(({ requestId: id }) => id)).toEqual([asked.requestId]);
  expect(waiting[0]?.keyring).toStartWith(`vault (${other.keyringId.slice(0, 16)}; `);
  await rejected(ada.client.keyring({ keyring: "vault" }), "ambiguous");
});

test("a keyring is named by name or beginning of its id, with the words of its federation", async () => {
  const { world, ada } = await start();
  const named = await ada.client.keyring({ keyring: "vault" });
  expect(await ada.client.keyring({ keyring: named.keyringId.slice(0, 6) })).toEqual(named);
  expect(await ada.client.keyrings()).toEqual([named]);
  expect(named).toMatchObject({ threshold: 2, fees: { key: 5, signature: 1 }, own: false, active: true });
  expect(named.words).toHaveLength(6);
  expect(named.parties.map(({ name, state, url }) => `${name} ${state} ${url}`)).toEqual([
    "p1 ok https://s1.test",
    "p2 ok https://s2.test",
    "p3 ok https://s3.test",
  ]);
  await rejected(ada.client.keyring({ keyring: "other" }), "not_found");
  world.meddle = (name, output) =>
    name === "keyring.get" ? { ...(output as object), keyringId: "ab".repeat(32) } : output;
  await rejected(ada.client.keyring({ keyring: named.keyringId }), "integrity");
});
