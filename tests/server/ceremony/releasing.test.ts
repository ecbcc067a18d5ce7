import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hpkeKeyPair, hpkeOpen } from "../../../src/crypto/hpke.ts";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import { releaseBytes, releaseInfo } from "../../../src/protocol/ceremony/records.ts";
import { STORED_KEY } from "../../../src/server/ceremony/storedkeys.ts";
import { putStored, readStored } from "../../../src/server/documents.ts";
import { approvalOf, type CeremonyServer, ceremonyServer, codeOf, finished, opened, releaseOf } from "./world.ts";

let server: CeremonyServer;
beforeEach(async () => {
  server = await ceremonyServer();
});
afterEach(() => server.close());

const pair = () => hpkeKeyPair(server.random.bytes(32));

describe("a stored value", () => {
  test("leaves for the organiser at once, where nobody must agree; the same wish gets the same bytes", async () => {
    const run = await opened(server, 2);
    await finished(server, run);
    const recipient = await pair();
    const { signed, hash } = await releaseOf(server, run, 0, recipient);
    const { sealed, needed } = await server.call("ceremony.collect", { release: signed });
    expect(needed).toBe(0);
    const row = await server.store.transaction((tx) => readStored(tx, STORED_KEY, signed.release.keyId));
    if (!row || !sealed) throw new Error("nothing came");
    expect((await hpkeOpen(recipient, releaseInfo(row.value.record, hash), sealed)).length).toBe(32);
    server.crash();
    expect((await server.call("ceremony.collect", { release: signed })).sealed).toEqual(sealed);
    const other = await releaseOf(server, run, 1, recipient);
    expect(await codeOf(server.call("ceremony.collect", { release: other.signed }))).toBe("denied");
    const { releases } = await server.call("ceremony.get", { ceremonyId: run.id, after: 0 });
    expect(releases).toMatchObject([{ done: true, approvals: [] }]);
  });

  test("leaves for a participant once the quorum has signed this very wish", async () => {
    const run = await opened(server, 3, { policy: { collect: "participants", quorum: 2 } });
    await finished(server, run);
    const { signed, hash } = await releaseOf(server, run, 1, await pair());
    const collect = () => server.call("ceremony.collect", { release: signed });
    const approve = (index: number, of = hash) =>
      server.call("ceremony.approve", { ceremonyId: run.id, approval: approvalOf(run.one(index), of) });
    expect(await codeOf(approve(2))).toBe("not_found");
    expect(await collect()).toEqual({ sealed: null, approvals: 0, needed: 2 });
    await approve(2);
    await approve(2);
    expect(await collect()).toEqual({ sealed: null, approvals: 1, needed: 2 });
    const stranger = { ...run.one(3), key: run.one(2).key };
    const forged = { ceremonyId: run.id, approval: approvalOf(stranger, hash) };
    expect(await codeOf(server.call("ceremony.approve", forged))).toBe("denied");
    expect(await collect()).toMatchObject({ sealed: null, approvals: 1 });
    // another wish of the same participant, for which nobody has signed
    const other = await releaseOf(server, run, 2, await pair());
    expect(await server.call("ceremony.collect", { release: other.signed })).toMatchObject({ approvals: 0 });
    await approve(3);
    expect((await collect()).sealed).toBeInstanceOf(Uint8Array);
    expect((await server.call("ceremony.collect", { release: other.signed })).sealed).toBeNull();
  });

  test("does not leave for strangers, for anyone under `nobody`, nor once it is revoked", async () => {
    const run = await opened(server, 2);
    await finished(server, run);
    const { signed } = await releaseOf(server, run, 0, await pair());
    const stranger = signerFromSeed(server.random.bytes(32));
    const forged = { ...signed, signature: stranger.sign(releaseBytes(signed.release)) };
    expect(await codeOf(server.call("ceremony.collect", { release: forged }))).toBe("integrity");
    const row = await server.store.transaction((tx) => readStored(tx, STORED_KEY, signed.release.keyId));
    if (!row) throw new Error("nothing stored");
    const revoked = { ...row, value: { ...row.value, status: "revoked" as const } };
    await server.store.transaction((tx) => putStored(tx, STORED_KEY, revoked, row.version));
    expect(await codeOf(server.call("ceremony.collect", { release: signed }))).toBe("denied");
    const closed = await opened(server, 2, { policy: { collect: "nobody", quorum: 0 } });
    await finished(server, closed);
    for (const index of [0, 1]) {
      const wish = await releaseOf(server, closed, index, await pair());
      expect(await codeOf(server.call("ceremony.collect", { release: wish.signed }))).toBe("denied");
    }
  });

  test("is asked for in one wish of each participant: a newer one replaces the one that waits", async () => {
    const run = await opened(server, 2, { policy: { collect: "participants", quorum: 2 } });
    await finished(server, run);
    const hashes: Uint8Array[] = [];
    for (const index of [1, 1, 2, 1]) {
      const wish = await releaseOf(server, run, index, await pair());
      await server.call("ceremony.collect", { release: wish.signed });
      hashes.push(wish.hash);
    }
    const { releases } = await server.call("ceremony.get", { ceremonyId: run.id, after: 0 });
    expect(releases.map(({ release }) => release.release.index).sort()).toEqual([1, 2]);
    const approval = approvalOf(run.one(2), hashes[0] ?? new Uint8Array(32));
    expect(await codeOf(server.call("ceremony.approve", { ceremonyId: run.id, approval }))).toBe("not_found");
  });

  test("is not there before the ceremony has ended", async () => {
    const done = await opened(server, 2);
    await finished(server, done);
    const { signed } = await releaseOf(server, done, 0, await pair());
    const open = await opened(server, 2);
    const early = { ...signed, release: { ...signed.release, ceremonyId: open.id } };
    expect(await codeOf(server.call("ceremony.collect", { release: early }))).toBe("conflict");
  });
});

test("who fails again and again without a session waits, and others do not", async () => {
  await server.close();
  server = await ceremonyServer({ limits: { loginFreeFailuresPerAddress: 3 } });
  const run = await opened(server, 2);
  const bad = { ceremonyId: run.id, index: 1 };
  const codes: string[] = [];
  for (let n = 0; n < 6; n++) codes.push(await codeOf(server.call("ceremony.part", bad)));
  expect(codes).toEqual(["not_found", "not_found", "not_found", "not_found", "rate_limited", "rate_limited"]);
  await finished(server, run);
  expect((await server.call("ceremony.get", { ceremonyId: run.id, after: 0 })).status).toBe("stored");
});
