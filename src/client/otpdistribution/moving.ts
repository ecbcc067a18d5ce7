import { equalBytes } from "../../crypto/bytes.ts";
import { verifySignature } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import { ceremonyKeyHash, movedKeyIdOf, verifyCeremonyKey } from "../../protocol/ceremony/records.ts";
import { parcelBytes } from "../../protocol/otphandout.ts";
import { decodeJson, encodeJson, type Of } from "../../wire/codec.ts";
import { parcel as parcelCodec } from "../../wire/otp/operations.ts";
import { pinOf } from "../../wire/pin.ts";
import { checked, type Ground, lie, newestKey } from "../ceremony/ground.ts";
import type { CeremonyClient, OtpEntryInfo } from "../ceremonyapi.ts";
import { entryInfo, ownKeyId } from "./entries.ts";

type Parcel = Of<typeof parcelCodec>;

/** Holds a parcel to the enclave that let the key go. @throws Fault integrity */
function checkParcel(url: string, { record, from, to, counter, sealed, signature }: Parcel): void {
  const { enclave } = checked(url, "a parcel of nobody", () => verifyCeremonyKey(from));
  const bytes = parcelBytes(record, to.key, counter, sealed);
  if (!equalBytes(record.enclave, enclave) || !verifySignature(enclave, bytes, signature)) {
    throw lie(url, "a parcel that its enclave did not sign");
  }
}

/** A sealed parcel of a key for the server with this pin, to the newest key that its identity states. */
export async function sendKey(ground: Ground, input: Parameters<CeremonyClient["otpSend"]>[0]): Promise<Uint8Array> {
  const { identity } = ground.account();
  const there = await ground.at(input.server);
  if (equalBytes(there.identity, identity)) throw new Fault("bad_input", "the key is at this server already");
  const to = await newestKey(ground, there);
  const keyId = await ownKeyId(ground, input.key);
  const parcel = await ground.call("otp.send", { keyId, to });
  const { url } = await ground.home();
  checkParcel(url, parcel);
  if (!equalBytes(parcel.from.key.server, identity)) throw lie(url, "a parcel of another server");
  if (parcel.record.keyId !== keyId || !equalBytes(ceremonyKeyHash(parcel.to.key), ceremonyKeyHash(to.key))) {
    throw lie(url, "another parcel than was asked for");
  }
  return new TextEncoder().encode(`${encodeJson(parcelCodec, parcel)}\n`);
}

/** Hands a parcel to the profile's server. @throws Fault bad_input for what is none, or for another server */
export async function receiveKey(ground: Ground, file: Uint8Array): Promise<OtpEntryInfo> {
  const { identity } = ground.account();
  const parcel = readParcel(file);
  const { server } = parcel.to.key;
  if (!equalBytes(server, identity)) {
    throw new Fault("bad_input", "this parcel is for another server", { why: `its pin is ${pinOf(server)}` });
  }
  checkParcel("the parcel's sender", parcel);
  const entry = await ground.call("otp.receive", { parcel });
  if (entry.record.keyId !== movedKeyIdOf(parcel.to.key.enclave, parcel.record))
    throw lie(ground.place?.url ?? "", "another key than was handed in");
  return entryInfo(ground, entry);
}

function readParcel(file: Uint8Array): Parcel {
  try {
    return decodeJson(parcelCodec, file);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault("bad_input", "this is not the parcel of a one-time password", {
      hint: "give the file that keyhold otp issue NAME --at wrote",
    });
  }
}
