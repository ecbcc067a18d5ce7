import { hpkeKeyPair, hpkeOpen } from "../../src/crypto/hpke.ts";
import type { Stored } from "../../src/enclave/storedvalue.ts";
import type { OtpAskId } from "../../src/ids.ts";
import type { OutputSpec, StoredKeyRecord } from "../../src/protocol/ceremony/model.ts";
import { createdKeyIdOf } from "../../src/protocol/ceremony/records.ts";
import type { OtpAsk } from "../../src/protocol/otphandout.ts";
import { handoutInfo } from "../../src/protocol/otphandout.ts";
import { decodeJson } from "../../src/wire/codec.ts";
import { handoutText } from "../../src/wire/otp/operations.ts";
import type { EntropyWorld } from "./entropyworld.ts";

/** Values of a key store without a ceremony, and a requester who opens what it is handed. */

/** Record of a new one-time password. @param nonce 32 bytes that its id is of. */
export function newRecord(
  world: EntropyWorld,
  output: OutputSpec,
  change: Partial<StoredKeyRecord> = {},
  nonce: Uint8Array = world.random.bytes(32),
): StoredKeyRecord {
  const enclave = world.keys.signer.publicKey;
  return {
    enclave,
    keyId: createdKeyIdOf(enclave, nonce),
    version: 1,
    ceremonyId: null,
    name: "new",
    output,
    policy: { collect: "nobody", quorum: 0 },
    createdAtMs: world.nowMs,
    ...change,
  };
}

/** Has the enclave draw a one-time password. */
export async function drawn(world: EntropyWorld, output: OutputSpec): Promise<Stored> {
  return (await world.enclave.handle("stored.create", { record: newRecord(world, output), value: null })).stored;
}

/** Who asks for codes: with a key of its own for one ask. */
export async function asker(world: EntropyWorld) {
  const pair = await hpkeKeyPair(world.random.bytes(32));
  const askId = world.random.bytes(32).toHex() as OtpAskId;
  return {
    ask: { askId, recipient: pair.publicKey },
    /** What was handed out. @throws Fault integrity for anything that is not for this ask */
    open: async (sealed: Uint8Array, record: StoredKeyRecord, want: OtpAsk["want"] = "code") =>
      decodeJson(handoutText, await hpkeOpen(pair, handoutInfo(askId, want, record), sealed)),
  };
}
