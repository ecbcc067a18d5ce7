import { Fault } from "../errors.ts";
import type { DeviceId, IncarnationId, UserId } from "../ids.ts";
import { bytes, type Codec, encodeJson, id, list, nullable, type Of, struct, text, u53, uint } from "../wire/codec.ts";
import { hash32, leafRecord, sealedValue, settings, signedState } from "../wire/records.ts";
import { NO_CEREMONIES } from "./ceremony/held.ts";
import {
  allFields,
  heldFields,
  heldOf,
  holdsNoCeremonies,
  holdsNoKeyrings,
  holdsNothing,
  keyringAndHeldFields,
  NOTHING_HELD,
} from "./federation/held.ts";
import { NO_KEYRINGS } from "./keyring/held.ts";
import { logPinCodec } from "./logpin.ts";
import { conflictCodec, entryCodec, QUEUE_MAX } from "./queue.ts";

const auditHeadCodec = struct({ seq: u53, link: hash32 });

/** Receipts that a vault keeps; the log is verified by itself before there are more. */
export const RECEIPTS_MAX = 1_024;

/** A vault's tie to an account, as it is kept. */
export const boundCodec = struct({
  account: text({ min: 1, max: 128 }),
  userId: id<UserId>(),
  incarnation: id<IncarnationId>(),
  deviceId: id<DeviceId>(),
  deviceSeed: hash32,
  serverIdentity: hash32,
  statementNumber: u53,
  head: signedState,
  settings,
  /** Log verified up to here, with the revision of the account at that point. */
  verified: struct({ seq: u53, link: hash32, revision: u53 }),
  /** Newest log position that a reply showed. */
  witnessed: auditHeadCodec,
  /** Every position that a reply showed and that is not verified yet, oldest first: the log must pass through all. */
  receipts: list(auditHeadCodec, { max: RECEIPTS_MAX }),
  /** The server-wide log, as far as it was seen. */
  log: logPinCodec,
  syncedAtMs: u53,
  /** Credential revision of the password that the vault's own slot opens with. */
  keyedRevision: u53,
  /** Revision of a rotation after which wrapped keys on the server may still be those of the key before; or null. */
  rewrapping: nullable(u53),
});

const storedSecret = struct({ leaf: leafRecord, sealed: nullable(sealedValue) });
const localSecret = struct({
  leaves: list(leafRecord, { min: 1, max: 100_000 }),
  values: list(struct({ version: uint(0xffff_ffff, 1), sealed: sealedValue }), { max: 100_000 }),
});

const always = {
  owner: id<UserId>(),
  accountKey: bytes({ length: 32 }),
  bound: nullable(boundCodec),
  secrets: list(storedSecret, { max: 1_000_000 }),
  local: list(localSecret, { max: 1_000_000 }),
};
const waiting = {
  queue: list(entryCodec, { max: QUEUE_MAX }),
  conflicts: list(conflictCodec, { max: QUEUE_MAX }),
};
const shortBody = struct({ v: uint(1, 1), ...always });
const longBody = struct({ v: uint(2, 2), ...always, ...waiting });
const federatedBody = struct({ v: uint(3, 3), ...always, ...waiting, ...heldFields });
const keyringBody = struct({ v: uint(4, 4), ...always, ...waiting, ...keyringAndHeldFields });
const ceremonyBody = struct({ v: uint(5, 5), ...always, ...waiting, ...allFields });

type Body = Omit<Of<typeof ceremonyBody>, "v">;

/**
 * What the vault's body holds (docs/protocol.md §7.3): what waits for the server, what belongs to federations, to
 * keyrings, and to ceremonies, makes it another version.
 */
export const bodyCodec: Codec<Body> = {
  decode(value, path) {
    const has = (name: string) => typeof value === "object" && value !== null && Object.hasOwn(value, name);
    if (has("ceremonies")) return ceremonyBody.decode(value, path);
    if (has("workspacePins")) return { ...keyringBody.decode(value, path), ...NO_CEREMONIES };
    if (has("federations")) return { ...federatedBody.decode(value, path), ...NO_KEYRINGS, ...NO_CEREMONIES };
    if (has("queue")) return { ...longBody.decode(value, path), ...NOTHING_HELD };
    return { ...shortBody.decode(value, path), queue: [], conflicts: [], ...NOTHING_HELD };
  },
  encode(body) {
    if (!holdsNoCeremonies(body)) return ceremonyBody.encode({ v: 5, ...body });
    if (!holdsNoKeyrings(body)) return keyringBody.encode({ v: 4, ...body });
    if (!holdsNothing(body)) return federatedBody.encode({ v: 3, ...body });
    const short = body.queue.length === 0 && body.conflicts.length === 0;
    return short ? shortBody.encode({ v: 1, ...body }) : longBody.encode({ v: 2, ...body });
  },
};

type Stored = Of<typeof storedSecret>;

/** JSON of a server's secret, by the object that stands for it: a change puts another object in its place. */
const storedTexts = new WeakMap<Stored, string>();

function storedText(secret: Stored): string {
  const known = storedTexts.get(secret);
  if (known !== undefined) return known;
  const text = encodeJson(storedSecret, secret);
  storedTexts.set(secret, text);
  return text;
}

const NONE = '"secrets":[]';

const held = struct(allFields);

function mustReadBack(body: Body): void {
  try {
    held.decode(JSON.parse(encodeJson(held, heldOf(body))), "held");
  } catch (error) {
    throw new Fault("internal", "the vault was not written: it could not be read back", {
      ...(error instanceof Fault && { why: error.message }),
    });
  }
}

/**
 * The one JSON text of a body; secrets that stand in an earlier one are not encoded anew.
 *
 * @throws Fault internal where what is held of federations, keyrings and ceremonies could not be read back: a vault is never written like that
 */
export function bodyText(body: Body): string {
  if (!holdsNothing(body)) mustReadBack(body);
  const rest = encodeJson(bodyCodec, { ...body, secrets: [] });
  // no text in the JSON holds this: its quotation marks would be escaped
  const at = rest.indexOf(NONE) + NONE.length - 1;
  return `${rest.slice(0, at)}${body.secrets.map(storedText).join(",")}${rest.slice(at)}`;
}
