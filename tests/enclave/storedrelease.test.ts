import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type HpkeKeyPair, hpkeKeyPair, hpkeOpen } from "../../src/crypto/hpke.ts";
import type { Signer } from "../../src/crypto/identity.ts";
import { openStored, type Stored } from "../../src/enclave/storedvalue.ts";
import type { Release, ReleaseApproval, SignedRelease, StorePolicy } from "../../src/protocol/ceremony/model.ts";
import { approvalBytes, releaseBytes, releaseHash, releaseInfo } from "../../src/protocol/ceremony/records.ts";
import { codeOf, withEntries } from "../support/entropyfaults.ts";
import { type EntropyWorld, entropyWorld, OUTPUTS, person, type Run } from "../support/entropyworld.ts";

let world: EntropyWorld;
let run: Run;
let stored: Stored;
let recipient: HpkeKeyPair;
beforeEach(async () => {
  world = await entropyWorld();
  recipient = await hpkeKeyPair(world.random.bytes(32));
});
afterEach(() => world.close());

async function made(policy: StorePolicy, change: object = {}): Promise<void> {
  run = await world.open({ n: 3, change: { policy, output: OUTPUTS.ed25519, ...change } });
  const done = await run.finish();
  if (!done.stored) throw new Error("nothing stored");
  stored = done.stored;
}

const wish = (index: number, change: Partial<Release> = {}): Release => ({
  keyId: stored.record.keyId,
  version: 1,
  ceremonyId: run.ceremonyId,
  index,
  recipient: recipient.publicKey,
  nonce: new Uint8Array(32).fill(9),
  ...change,
});
const signed = (release: Release, signer?: Signer): SignedRelease => {
  const asker = () => (release.index === 0 ? run.organiser : run.person(release.index).signer);
  return { release, signature: (signer ?? asker()).sign(releaseBytes(release)) };
};
const approval = (index: number, release: Release, signer = run.person(index).signer): ReleaseApproval => ({
  releaseHash: releaseHash(release),
  index,
  signature: signer.sign(approvalBytes(releaseHash(release), index)),
});
const ask = (release: SignedRelease, approvals: readonly ReleaseApproval[] = [], change: object = {}) =>
  world.enclave.handle("stored.release", { stored, transcript: run.transcript, release, approvals, ...change });

describe("a release", () => {
  test("goes to the organiser alone, where the manifest says organiser", async () => {
    await made({ collect: "organiser", quorum: 0 });
    const release = wish(0);
    const { sealed } = await ask(signed(release));
    const info = releaseInfo(stored.record, releaseHash(release));
    expect(await hpkeOpen(recipient, info, sealed)).toEqual(openStored(world.keys, stored));
    const other = releaseInfo(stored.record, releaseHash(wish(0, { nonce: new Uint8Array(32) })));
    expect(await codeOf(hpkeOpen(recipient, other, sealed))).toBe("integrity");
    for (const index of [1, 2, 3]) expect(await codeOf(ask(signed(wish(index))))).toBe("denied");
  });

  test("goes to each participant alone, where the manifest says participants", async () => {
    await made({ collect: "participants", quorum: 0 });
    for (const index of [1, 2, 3]) {
      const release = wish(index);
      const { sealed } = await ask(signed(release));
      const info = releaseInfo(stored.record, releaseHash(release));
      expect(await hpkeOpen(recipient, info, sealed)).toEqual(openStored(world.keys, stored));
    }
    expect(await codeOf(ask(signed(wish(0))))).toBe("denied");
    const stranger = await person(world.random, 4);
    expect(await codeOf(ask(signed(wish(4), stranger.signer)))).toBe("denied");
  });

  test("goes to nobody, where the manifest says nobody", async () => {
    await made({ collect: "nobody", quorum: 0 });
    for (const index of [0, 1, 2, 3]) expect(await codeOf(ask(signed(wish(index))))).toBe("denied");
  });

  test("not to one who had a seat and stayed away", async () => {
    run = await world.open({
      n: 3,
      change: { policy: { collect: "participants", quorum: 0 }, output: OUTPUTS.bytes, minimum: 2 },
    });
    await run.join(1);
    await run.join(2);
    await run.freeze();
    const done = await run.finish();
    if (!done.stored) throw new Error("nothing stored");
    stored = done.stored;
    expect(await codeOf(ask(signed(wish(3))))).toBe("denied");
    expect(await codeOf(ask(signed(wish(2))))).toBe("ok");
  });

  test("needs the asker's own signature under this very wish", async () => {
    await made({ collect: "organiser", quorum: 0 });
    expect(await codeOf(ask(signed(wish(0), run.person(1).signer)))).toBe("integrity");
    const other = { ...signed(wish(0)), release: wish(0, { recipient: world.keys.hpke.publicKey }) };
    expect(await codeOf(ask(other))).toBe("integrity");
  });

  test("is of the value that this ceremony made, and of no other", async () => {
    const policy = { collect: "organiser", quorum: 0 } as const;
    await made(policy);
    const before = { run, stored };
    await made(policy);
    expect(await codeOf(ask(signed(wish(0, { version: 2 }))))).toBe("denied");
    expect(await codeOf(ask(signed(wish(0, { keyId: before.stored.record.keyId }))))).toBe("denied");
    expect(await codeOf(ask(signed(wish(0, { ceremonyId: before.run.ceremonyId }))))).toBe("denied");
    expect(await codeOf(ask(signed(wish(0)), [], { transcript: before.run.transcript }))).toBe("denied");
    expect(await codeOf(ask(signed(wish(0)), [], { stored: before.stored }))).toBe("denied");
    const swapped = { record: stored.record, sealed: before.stored.sealed };
    expect(await codeOf(ask(signed(wish(0)), [], { stored: swapped }))).toBe("integrity");
    const renamed = { record: { ...stored.record, name: "other" }, sealed: stored.sealed };
    expect(await codeOf(ask(signed(wish(0)), [], { stored: renamed }))).toBe("denied");
  });

  test("needs the end of the transcript, and the enclave's signature under it", async () => {
    await made({ collect: "organiser", quorum: 0 });
    const { entries } = run.transcript;
    const cut = withEntries(run.transcript, entries.slice(0, -1));
    expect(await codeOf(ask(signed(wish(0)), [], { transcript: cut }))).toBe("denied");
    const [last] = entries.slice(-1);
    if (!last) throw new Error("no entries");
    const forged = withEntries(run.transcript, [...entries.slice(0, -1), { ...last, signature: new Uint8Array(64) }]);
    expect(await codeOf(ask(signed(wish(0)), [], { transcript: forged }))).toBe("integrity");
  });

  test("of a manifest with another policy is refused", async () => {
    await made({ collect: "organiser", quorum: 2 });
    const { manifest, signature } = run.transcript.manifest;
    const draft = { ...manifest.draft, policy: { collect: "organiser", quorum: 0 } };
    const transcript = { ...run.transcript, manifest: { manifest: { ...manifest, draft }, signature } };
    expect(await codeOf(ask(signed(wish(0)), [], { transcript }))).toBe("integrity");
  });

  test("sealed to a key that is none is refused", async () => {
    await made({ collect: "organiser", quorum: 0 });
    expect(await codeOf(ask(signed(wish(0, { recipient: new Uint8Array(32) }))))).toBe("bad_input");
  });
});

describe("a quorum", () => {
  beforeEach(() => made({ collect: "participants", quorum: 2 }));

  test("is as many different participants as the manifest says; the asker is one like the others", async () => {
    const release = wish(1);
    const [one, two, three] = [approval(1, release), approval(2, release), approval(3, release)];
    for (const approvals of [[], [one], [two], [two, two], [two, two, two]]) {
      expect(await codeOf(ask(signed(release), approvals))).toBe("denied");
    }
    for (const approvals of [
      [one, two],
      [two, three],
      [three, two, three],
      [one, two, three],
    ]) {
      expect(await codeOf(ask(signed(release), approvals))).toBe("ok");
    }
  });

  test("counts no approval of another wish, by another's key, or of nobody", async () => {
    const release = wish(1);
    const good = approval(2, release);
    const stranger = await person(world.random, 4);
    const bad: ReleaseApproval[] = [
      approval(3, wish(1, { nonce: new Uint8Array(32) })),
      approval(3, wish(2)),
      approval(3, wish(1, { recipient: world.keys.hpke.publicKey })),
      approval(3, release, run.person(2).signer),
      approval(3, release, run.organiser),
      approval(4, release, stranger.signer),
      { ...approval(2, release), index: 3 },
      { ...approval(3, release), releaseHash: new Uint8Array(32) },
      { ...approval(3, release), signature: new Uint8Array(64) },
    ];
    for (const one of bad) expect(await codeOf(ask(signed(release), [good, one]))).toBe("denied");
    // one that does not hold is in nobody's way
    expect(await codeOf(ask(signed(release), [...bad, good, approval(3, release)]))).toBe("ok");
  });

  test("of one ceremony counts in no other", async () => {
    const before = { run, approvals: [approval(2, wish(1)), approval(3, wish(1))] };
    await made({ collect: "participants", quorum: 2 });
    expect(await codeOf(ask(signed(wish(1)), before.approvals))).toBe("denied");
  });
});

test("a key that has left for another server is not released here", async () => {
  await made({ collect: "organiser", quorum: 0 }, { output: OUTPUTS.totp });
  expect(await codeOf(ask(signed(wish(0))))).toBe("ok");
  const to = world.key.statement;
  await world.enclave.handle("stored.send", { stored, to, counter: 0 });
  expect(await codeOf(ask(signed(wish(0))))).toBe("denied");
});

test("after a restart the same wish is released again", async () => {
  await made({ collect: "organiser", quorum: 0 });
  world.restart();
  expect(await codeOf(ask(signed(wish(0))))).toBe("ok");
});
