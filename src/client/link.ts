import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import { LINK_SECRET_BYTES, linkId, sealParcel } from "../protocol/link.ts";
import { accountName } from "../wire/accountname.ts";
import { bytes, type Codec, decodeJson, encodeJson, id, type Of, struct, text, u53, uint } from "../wire/codec.ts";
import { parsePin } from "../wire/pin.ts";
import { hash32 } from "../wire/records.ts";
import type { DeviceLink } from "./api.ts";
import { type FederationParcel, federationParcel, parcelOf } from "./federation/parcel.ts";
import { boundOf, pinnedHash } from "./model.ts";
import { type Open, online } from "./opened.ts";

/** What a link's code says: where to ask, and with what to open the answer. */
const codeCodec = struct({
  v: uint(1, 1),
  url: text({ min: 1, max: 512 }),
  pin: text({ min: 1, max: 64 }),
  secret: bytes({ length: LINK_SECRET_BYTES }),
});

const position = {
  account: accountName,
  userId: id<UserId>(),
  revision: u53,
  stateHash: hash32,
  auditSeq: u53,
  auditLink: hash32,
};
const bareParcel = struct({ v: uint(1, 1), ...position });
const wholeParcel = struct({ v: uint(2, 2), ...position, federation: federationParcel });

type Parcel = Omit<Of<typeof bareParcel>, "v"> & { readonly federation: FederationParcel | null };

/**
 * What the parcel tells a new device: the account, the newest position that this device knows, and what belongs to
 * federations, where the account has joined any.
 */
export const parcelCodec: Codec<Parcel> = {
  decode(value, path) {
    const whole = typeof value === "object" && value !== null && Object.hasOwn(value, "federation");
    return whole ? wholeParcel.decode(value, path) : { ...bareParcel.decode(value, path), federation: null };
  },
  encode({ federation, ...rest }) {
    return federation ? wholeParcel.encode({ v: 2, ...rest, federation }) : bareParcel.encode({ v: 1, ...rest });
  },
};

const PREFIX = "keyhold-link-";

/** Leaves this device's view of the account for a new one, under a one-time code (docs/protocol.md §5.9). */
export function linkDevice(open: Open, server: { url: string; pin: string }): Promise<DeviceLink> {
  return online(open, true, async (at) => {
    if (!at) throw new Fault("unreachable", "the server is away");
    const secret = open.around.random(LINK_SECRET_BYTES);
    const { model } = open.box;
    const bound = boundOf(model);
    const parcel = encodeJson(parcelCodec, {
      account: bound.account,
      userId: bound.userId,
      revision: bound.head.state.revision,
      stateHash: pinnedHash(bound),
      auditSeq: bound.witnessed.seq,
      auditLink: bound.witnessed.link,
      federation: parcelOf(model.held),
    });
    try {
      const sealed = sealParcel(secret, new TextEncoder().encode(parcel), open.around.random);
      const { output, requestId } = await at.session.call("account.device.link", { linkId: linkId(secret), sealed });
      const code = encodeJson(codeCodec, { v: 1, ...server, secret });
      return {
        code: PREFIX + new TextEncoder().encode(code).toBase64({ alphabet: "base64url", omitPadding: true }),
        expiresAt: new Date(output.expiresAtMs).toISOString(),
        requestId,
      };
    } finally {
      wipe(secret);
    }
  });
}

/** A code taken apart. @throws Fault bad_input */
export function readLinkCode(code: string): {
  server: { readonly url: string; readonly pin: string };
  secret: Uint8Array;
} {
  const text = code.trim();
  try {
    if (!text.startsWith(PREFIX)) throw new Error("prefix");
    const { url, pin, secret } = decodeJson(
      codeCodec,
      Uint8Array.fromBase64(text.slice(PREFIX.length), { alphabet: "base64url" }),
    );
    return { server: { url, pin: parsePin(pin) }, secret };
  } catch {
    throw new Fault("bad_input", "this is not the code of a device link", {
      hint: `copy the whole line that begins with ${PREFIX}`,
    });
  }
}
