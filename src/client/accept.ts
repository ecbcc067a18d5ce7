import { wipe } from "../crypto/bytes.ts";
import { linkId, openParcel } from "../protocol/link.ts";
import { decodeJson } from "../wire/codec.ts";
import { type KnownBefore, profileServer, refuseExisting } from "./enrol.ts";
import type { Home, ServerInput } from "./home.ts";
import { parcelCodec, readLinkCode } from "./link.ts";
import { callClear, connect } from "./login.ts";
import type { Surroundings } from "./model.ts";
import { asProfileName } from "./profile.ts";

/** What a link told: whose account it is, and what it must continue. */
export interface Linked {
  readonly server: ServerInput;
  readonly account: string;
  readonly known: KnownBefore;
}

/**
 * Takes the parcel of a code: once. The new device then logs in with the account's password and must find the account
 * to continue the position that the other device knew.
 *
 * @param profile Name of the profile to be made: refused before the code is spent.
 * @throws Fault bad_input, exists, not_found for a code that was used or is over, integrity, unreachable
 */
export async function takeLink(
  home: Home,
  profile: string,
  input: { readonly code: string; readonly tlsCaPem: string | null },
  around: Surroundings,
): Promise<Linked> {
  const { server: named, secret } = readLinkCode(input.code);
  const server: ServerInput = { ...named, tlsCaPem: input.tlsCaPem };
  refuseExisting(home, asProfileName(profile));
  try {
    const { link } = await connect(profileServer(server), around);
    const { sealed } = await callClear(link, "account.device.accept", { linkId: linkId(secret) });
    const parcel = decodeJson(parcelCodec, openParcel(secret, sealed));
    const known: KnownBefore = {
      userId: parcel.userId,
      anchor: { revision: parcel.revision, stateHash: parcel.stateHash },
      ...(parcel.federation && { federation: parcel.federation }),
      ...(parcel.auditSeq > 0 && { audit: { seq: parcel.auditSeq, link: parcel.auditLink } }),
    };
    return { server, account: parcel.account, known };
  } finally {
    wipe(secret);
  }
}
