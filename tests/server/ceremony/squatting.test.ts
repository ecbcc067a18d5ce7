import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hpkeKeyPair, hpkeSeal } from "../../../src/crypto/hpke.ts";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import type { CeremonyKey, StoredKeyRecord } from "../../../src/protocol/ceremony/model.ts";
import { ceremonyKeyBytes, storedKeyIdOf } from "../../../src/protocol/ceremony/records.ts";
import { parcelBytes, parcelInfo } from "../../../src/protocol/otphandout.ts";
import { STORED_KEY } from "../../../src/server/ceremony/storedkeys.ts";
import type { FederatedCaller } from "../../../src/server/context.ts";
import { readStored } from "../../../src/server/documents.ts";
import { createDistribution, type DistributionPart } from "../../../src/server/otp/index.ts";
import { HOTP } from "../otp/world.ts";
import {
  type CeremonyServer,
  ceremonyServer,
  codeOf,
  finished,
  opened,
  type Run,
  releaseOf,
  statusOf,
  transcriptOf,
} from "./world.ts";

let server: CeremonyServer;
let distribution: DistributionPart;
beforeEach(async () => {
  server = await ceremonyServer();
  const { keys } = server.site.ctx;
  Object.assign(server.site.ctx, {
    incarnation: "1".repeat(32),
    keys: { ...keys, identity: server.site.identity.publicKey },
  });
  distribution = createDistribution(server.site);
});
afterEach(() => server.close());

/** Account 3 is nobody in the ceremonies. */
const stranger = () => ({ account: server.account(3), concerns: () => undefined }) as unknown as FederatedCaller;

/** The parcel of a store that is all the attacker's: it says of its key what is to be the ceremony's. */
async function forged(run: Run) {
  const enclave = signerFromSeed(server.random.bytes(32));
  const { draft } = run;
  const to = draft.key;
  const key: CeremonyKey = { ...to.key, server: enclave.publicKey, enclave: enclave.publicKey };
  const signature = enclave.sign(ceremonyKeyBytes(key));
  const record: StoredKeyRecord = {
    enclave: enclave.publicKey,
    keyId: storedKeyIdOf(to.key.enclave, Uint8Array.fromHex(run.id)),
    version: 1,
    ceremonyId: run.id,
    name: draft.name,
    output: draft.output,
    policy: draft.policy,
    createdAtMs: server.nowMs,
  };
  const value = new Uint8Array(20).fill(7);
  const sealed = await hpkeSeal(to.key.sealing, parcelInfo(record, to.key, 0), value, (n) => server.random.bytes(n));
  const from = { key, signature, enclaveSignature: signature };
  return { record, from, to, counter: 0, sealed, signature: enclave.sign(parcelBytes(record, to.key, 0, sealed)) };
}

describe("the place of a ceremony's key in the store", () => {
  test("is not taken by a one-time password whose nonce is the ceremony's id", async () => {
    const run = await opened(server, 2);
    const nonce = Uint8Array.fromHex(run.id);
    await distribution["otp.create"](stranger(), { name: "squatter", output: HOTP, nonce, value: null });
    await finished(server, run);
    expect(await statusOf(server, run)).toBe("stored");
  });

  test("is not taken by a parcel that says to be its key", async () => {
    const run = await opened(server, 2, { output: HOTP });
    await distribution["otp.receive"](stranger(), { parcel: await forged(run) });
    await finished(server, run);
    expect(await statusOf(server, run)).toBe("stored");
  });

  test("holds nothing else: the enclave releases no value of a parcel as the ceremony's", async () => {
    const run = await opened(server, 2, { output: HOTP, policy: { collect: "organiser", quorum: 0 } });
    await finished(server, run);
    const { signed } = await releaseOf(server, run, 0, await hpkeKeyPair(server.random.bytes(32)));
    const transcript = await transcriptOf(server, run);
    const { keyId } = signed.release;
    const own = await server.store.transaction((tx) => readStored(tx, STORED_KEY, keyId));
    if (!own) throw new Error("nothing stored");
    const release = (stored: { readonly record: StoredKeyRecord; readonly sealed: Uint8Array }) =>
      server.site.enclave.call("stored.release", { stored, transcript, release: signed, approvals: [] });
    const { record, sealed } = own.value;
    expect(await codeOf(release({ record, sealed }))).toBe("ok");
    const { keyId: forgedId } = (await distribution["otp.receive"](stranger(), { parcel: await forged(run) })).record;
    const planted = await server.store.transaction((tx) => readStored(tx, STORED_KEY, forgedId));
    if (!planted) throw new Error("nothing planted");
    const { value } = planted;
    expect(await codeOf(release({ record: value.record, sealed: value.sealed }))).toBe("denied");
    expect(await codeOf(release({ record: { ...value.record, keyId }, sealed: value.sealed }))).toBe("integrity");
  });
});
