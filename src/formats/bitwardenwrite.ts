import { createHash } from "node:crypto";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { CARD, CUSTOM, IDENTITY, ITEM, type Mapped } from "./bitwardenfields.ts";
import type { PlainItem, Written } from "./foreign.ts";
import { boundedItem, checkName, utf8Bytes, utf8Text } from "./item.ts";
import { sshPublicKey } from "./openssh.ts";
import { otpField } from "./otpfield.ts";

type Json = Record<string, unknown>;

/** Takes the first field of that name and kind, whose value fits, out of those that are left; null for none. */
type Take = (wanted: Pick<Mapped, "name" | "kind">, accept?: (value: string) => boolean) => string | null;

/**
 * Writes Bitwarden's plain JSON export, deterministically. The last part of a name is the title, the others are the
 * folder. Types that Bitwarden has not become logins or notes, which is named among what is lost.
 *
 * @throws Fault bad_input
 */
export function writeBitwarden(items: readonly PlainItem[]): Written {
  const lost: { what: string }[] = [];
  const folders = new Map<string, string>();
  const written = items.map((item) => {
    checkName(item.name);
    boundedItem("bitwarden", item);
    const lose = (what: string) => lost.push({ what: `"${item.name}": ${what}` });
    if (item.value.length > DEFAULTS.secretBytes) {
      throw new Fault("bad_input", `cannot write "${item.name}" as bitwarden: its JSON holds no files`);
    }
    return itemJson(item, folders, lose);
  });
  const file = {
    encrypted: false,
    folders: [...folders].map(([name, id]) => ({ id, name })),
    items: written,
  };
  return { file: utf8Bytes(`${JSON.stringify(file, null, 2)}\n`), lost };
}

/** A UUID that depends on nothing but the text, so that the same items give the same file. */
function uuidOf(text: string): string {
  const hex = createHash("sha256").update(text).digest("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

function itemJson(item: PlainItem, folders: Map<string, string>, lose: (what: string) => void): Json {
  const at = item.name.lastIndexOf("/");
  const folder = item.name.slice(0, Math.max(at, 0));
  if (folder !== "" && !folders.has(folder)) folders.set(folder, uuidOf(`folder ${folder}`));
  const rest = [...(item.fields ?? [])];
  const take: Take = ({ name, kind }, accept = (value) => value !== "") => {
    const index = rest.findIndex((one) => one.name === name && one.kind === kind && accept(one.value));
    return index < 0 ? null : (rest.splice(index, 1)[0]?.value ?? null);
  };
  const content = contentJson(item, take, lose);
  const notes = content.notes ?? take({ name: "notes", kind: "text" });
  for (const one of rest) {
    if (one.value === "") lose(`field "${one.name}", which is empty`);
    else if (one.kind !== "text" && one.kind !== "hidden") lose(`that field "${one.name}" is of kind ${one.kind}`);
  }
  for (const tag of item.tags) if (tag !== "favorite" && tag !== "reprompt") lose(`tag "${tag}"`);
  if (item.expiresAt) lose("its day of expiry");
  const custom = rest.filter(({ value }) => value !== "");
  return {
    id: uuidOf(`item ${item.name}`),
    organizationId: null,
    folderId: folders.get(folder) ?? null,
    type: content.type,
    reprompt: item.tags.includes("reprompt") ? 1 : 0,
    name: item.name.slice(at + 1),
    notes,
    favorite: item.tags.includes("favorite"),
    ...(custom.length > 0
      ? {
          fields: custom.map(({ name, kind, value }) => ({
            name,
            value,
            type: kind === "hidden" || kind === "otp" ? CUSTOM.hidden : CUSTOM.text,
            linkedId: null,
          })),
        }
      : {}),
    ...content.body,
    collectionIds: null,
    ...(item.createdAt === null ? {} : { creationDate: item.createdAt, revisionDate: item.createdAt }),
  };
}

interface ItemBody {
  readonly type: number;
  /** Null: the notes are a field. */
  readonly notes: string | null;
  readonly body: Json;
}

function contentJson(item: PlainItem, take: Take, lose: (what: string) => void): ItemBody {
  const value = utf8Text(item.value);
  if (value === null || item.type === "file") {
    const notes = Buffer.from(item.value).toString("base64");
    if (notes.length > DEFAULTS.secretBytes) {
      const why = `a note has at most ${DEFAULTS.secretBytes} bytes, and it stands there in base64`;
      throw new Fault("bad_input", `cannot write "${item.name}" as bitwarden`, {
        why,
        hint: "--skip-unsupported leaves it out",
      });
    }
    lose(`that its type is ${item.type}: written as a note in base64`);
    return noteJson(notes);
  }
  switch (item.type) {
    case "login":
      return loginJson(value, take({ name: "otp", kind: "otp" }, isOtp), take);
    case "note":
      return noteJson(value);
    case "card":
      return { type: ITEM.card, notes: null, body: { card: cardJson(value, take) } };
    case "identity":
      if (value !== "") {
        lose("that its type is identity: written as a note, since it has a value");
        return noteJson(value);
      }
      return { type: ITEM.identity, notes: null, body: { identity: mappedJson(IDENTITY, take) } };
    case "ssh":
      return sshJson(item.value, value, lose);
    case "totp":
    case "hotp":
      lose(`that its type is ${item.type}: written as a ${isOtp(value) ? "login" : "note"}`);
      return isOtp(value) ? loginJson("", value, take) : noteJson(value);
    default:
      lose(`that its type is ${item.type}: written as a login`);
      return loginJson(value, take({ name: "otp", kind: "otp" }, isOtp), take);
  }
}

const orNull = (text: string): string | null => (text === "" ? null : text);

function noteJson(notes: string): ItemBody {
  return { type: ITEM.note, notes, body: { secureNote: { type: 0 } } };
}

function loginJson(password: string, totp: string | null, take: Take): ItemBody {
  const username = take({ name: "user", kind: "text" });
  const uris: Json[] = [];
  for (let uri = take({ name: "url", kind: "url" }); uri !== null; uri = take({ name: "url", kind: "url" })) {
    uris.push({ match: null, uri });
  }
  const login = { uris, username, password: orNull(password), totp };
  return { type: ITEM.login, notes: null, body: { login } };
}

const isExpiry = (value: string): boolean => /^(?:0[1-9]|1[0-2])\/\d{4}$/.test(value);

/** True where reading gives the same field again. */
const isOtp = (value: string): boolean => {
  const again = otpField(value, "");
  return again.kind === "otp" && again.value === value;
};

function cardJson(number: string, take: Take): Json {
  const [month, year] = take({ name: "expiry", kind: "text" }, isExpiry)?.split("/") ?? [];
  return {
    ...mappedJson(CARD, take),
    number: orNull(number),
    expMonth: month === undefined ? null : String(Number(month)),
    expYear: year ?? null,
  };
}

function mappedJson(members: readonly Mapped[], take: Take): Json {
  return Object.fromEntries(members.map((one) => [one.key, take(one)]));
}

function sshJson(bytes: Uint8Array, privateKey: string, lose: (what: string) => void): ItemBody {
  try {
    const blob = sshPublicKey(bytes);
    const kind = new TextDecoder().decode(blob.subarray(4, 4 + new DataView(blob.buffer).getUint32(0)));
    const publicKey = `${kind} ${Buffer.from(blob).toString("base64")}`;
    const keyFingerprint = `SHA256:${createHash("sha256").update(blob).digest("base64").replace(/=+$/, "")}`;
    return { type: ITEM.ssh, notes: null, body: { sshKey: { privateKey, publicKey, keyFingerprint } } };
  } catch (error) {
    if (!(error instanceof Fault) && !(error instanceof RangeError)) throw error;
    lose("that its type is ssh: written as a note");
    return noteJson(privateKey);
  }
}
