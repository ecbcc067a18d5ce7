import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { unprotect } from "./bitwardencrypt.ts";
import { CARD, CUSTOM, cardExpiry, IDENTITY, ITEM, type Mapped, OTHER } from "./bitwardenfields.ts";
import type { Asks } from "./foreign.ts";
import { type JsonObject, listIn, member, objectIn, objectOf, parseForeign, textIn } from "./foreignjson.ts";
import { contained, type Draft, FOREIGN, field, type Gathering, gather, isoTime, tooMany } from "./gathering.ts";
import { type ReadResult, unreadable } from "./item.ts";
import { sshPublicKey } from "./openssh.ts";
import { otpField } from "./otpfield.ts";

const FORMAT = "bitwarden";

/** Reads both forms of Bitwarden's JSON export. @throws Fault bad_input, too_large, unsupported, wrong_password */
export async function readBitwarden(source: Uint8Array | string, asks: Asks): Promise<ReadResult> {
  const file = parseForeign(FORMAT, source);
  if (member(file, "encrypted") !== true) return readPlain(file);
  if (member(file, "passwordProtected") !== true) {
    throw new Fault("unsupported", "cannot read this file as bitwarden: it is sealed to a Bitwarden account", {
      why: "only that account can open it",
      hint: 'export again as ".json", or as ".json (Encrypted)" with file type "Password protected"',
    });
  }
  const opened = await contained(FORMAT, () => unprotect(file, asks));
  try {
    return await readPlain(parseForeign(FORMAT, opened));
  } finally {
    opened.fill(0);
  }
}

function readPlain(file: JsonObject): Promise<ReadResult> {
  if (member(file, "encrypted") === true) throw unreadable(FORMAT, "what it protects is encrypted once more");
  const items = listIn(FORMAT, file, "items");
  if (!Array.isArray(member(file, "items"))) throw unreadable(FORMAT, "it has no items");
  if (items.length > FOREIGN.items) throw tooMany(FORMAT);
  const folders = named(listIn(FORMAT, file, "folders"));
  const collections = named(listIn(FORMAT, file, "collections"));
  return gather(FORMAT, (gathering) => {
    for (const one of items) readItem(gathering, objectOf(FORMAT, one), folders, collections);
  });
}

/** Folders or collections by their id. */
function named(list: readonly unknown[]): ReadonlyMap<string, string> {
  return new Map(
    list.map((one) => {
      const object = objectOf(FORMAT, one);
      return [textIn(FORMAT, object, "id"), textIn(FORMAT, object, "name")];
    }),
  );
}

type Names = ReadonlyMap<string, string>;

function readItem(gathering: Gathering, item: JsonObject, folders: Names, collections: Names): void {
  const title = textIn(FORMAT, item, "name");
  if (textIn(FORMAT, item, "deletedDate") !== "") {
    gathering.lose(null, "an item in the trash");
    return;
  }
  const inCollections = listIn(FORMAT, item, "collectionIds").flatMap((id) =>
    typeof id === "string" ? (collections.get(id) ?? []) : [],
  );
  const place = folders.get(textIn(FORMAT, item, "folderId")) ?? inCollections[0] ?? "";
  const content = contentOf(item, title);
  const notes = content.type === "note" ? [] : [field("notes", "text", textIn(FORMAT, item, "notes"))];
  const custom = customFields(item);
  const name = gathering.add({
    path: [place, title],
    type: content.type,
    value: content.value,
    fields: [...content.fields, ...notes, ...custom.fields],
    tags: [...tagsOf(item), ...inCollections.filter((one) => one !== place)],
    createdAt: isoTime(textIn(FORMAT, item, "creationDate")),
  });
  for (const what of [...content.lost, ...custom.lost]) gathering.lose(name, what);
  const former = listIn(FORMAT, item, "passwordHistory").length;
  if (former > 0) gathering.lose(name, `${former} former passwords`);
}

function tagsOf(item: JsonObject): string[] {
  const tags: string[] = [];
  if (member(item, "favorite") === true) tags.push("favorite");
  if (member(item, "reprompt") === 1) tags.push("reprompt");
  if (textIn(FORMAT, item, "archivedDate") !== "") tags.push("archived");
  return tags;
}

interface ItemContent extends Pick<Draft, "type"> {
  readonly value: string;
  readonly fields: readonly Field[];
  readonly lost: readonly string[];
}

function contentOf(item: JsonObject, title: string): ItemContent {
  const type = member(item, "type");
  switch (type) {
    case ITEM.login:
      return loginOf(objectIn(FORMAT, item, "login"), title);
    case ITEM.note:
      return { type: "note", value: textIn(FORMAT, item, "notes"), fields: [], lost: [] };
    case ITEM.card:
      return cardOf(objectIn(FORMAT, item, "card"));
    case ITEM.identity: {
      const fields = mappedFields(objectIn(FORMAT, item, "identity"), IDENTITY);
      return { type: "identity", value: "", fields, lost: [] };
    }
    case ITEM.ssh:
      return sshOf(objectIn(FORMAT, item, "sshKey"));
    default: {
      const other = typeof type === "number" && Object.hasOwn(OTHER, type) ? OTHER[type] : undefined;
      if (!other) throw unreadable(FORMAT, "an item is of a type that this version does not know");
      const fields = mappedFields(objectIn(FORMAT, item, other.key), other.members);
      return { type: "note", value: textIn(FORMAT, item, "notes"), fields, lost: [] };
    }
  }
}

function mappedFields(from: JsonObject, members: readonly Mapped[]): Field[] {
  return members.map(({ key, name, kind }) => field(name, kind, textIn(FORMAT, from, key)));
}

function loginOf(login: JsonObject, title: string): ItemContent {
  const lost: string[] = [];
  const uris = listIn(FORMAT, login, "uris").map((one) => objectOf(FORMAT, one));
  const matched = uris.filter((uri) => typeof member(uri, "match") === "number").length;
  if (matched > 0) lost.push(`how ${matched} addresses are matched`);
  const passkeys = listIn(FORMAT, login, "fido2Credentials").length;
  if (passkeys > 0) lost.push(`${passkeys} passkeys`);
  const totp = textIn(FORMAT, login, "totp");
  return {
    type: "login",
    value: textIn(FORMAT, login, "password"),
    fields: [
      field("user", "text", textIn(FORMAT, login, "username")),
      ...uris.map((uri) => field("url", "url", textIn(FORMAT, uri, "uri"))),
      ...(totp === "" ? [] : [otpField(totp, title)]),
    ],
    lost,
  };
}

function cardOf(card: JsonObject): ItemContent {
  const month = textIn(FORMAT, card, "expMonth");
  const year = textIn(FORMAT, card, "expYear");
  const expiry = cardExpiry(month, year);
  const [holder, ...rest] = mappedFields(card, CARD);
  const dates =
    expiry === null
      ? [field("expiry-month", "text", month), field("expiry-year", "text", year)]
      : [field("expiry", "text", expiry)];
  return {
    type: "card",
    value: textIn(FORMAT, card, "number"),
    fields: [...(holder ? [holder] : []), ...dates, ...rest],
    lost: [],
  };
}

/** The public key and its fingerprint are made anew from the private key. */
function sshOf(key: JsonObject): ItemContent {
  const value = textIn(FORMAT, key, "privateKey");
  const bytes = new TextEncoder().encode(value);
  try {
    sshPublicKey(bytes);
    return { type: "ssh", value, fields: [], lost: [] };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const publicKey = field("ssh-public-key", "text", textIn(FORMAT, key, "publicKey"));
    return { type: "note", value, fields: [publicKey], lost: ["its type: this is no OpenSSH private key"] };
  } finally {
    bytes.fill(0);
  }
}

function customFields(item: JsonObject): { fields: Field[]; lost: string[] } {
  const fields: Field[] = [];
  let linked = 0;
  for (const one of listIn(FORMAT, item, "fields")) {
    const custom = objectOf(FORMAT, one);
    const type = member(custom, "type");
    if (type === CUSTOM.linked) linked++;
    else {
      const kind = type === CUSTOM.hidden ? "hidden" : "text";
      fields.push(field(textIn(FORMAT, custom, "name"), kind, textIn(FORMAT, custom, "value")));
    }
  }
  return { fields, lost: linked > 0 ? [`${linked} linked fields`] : [] };
}
