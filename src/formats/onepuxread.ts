import { DEFAULTS } from "../protocol/defaults.ts";
import { type JsonObject, listIn, objectIn, objectOf, parseForeign, textIn, wholeIn } from "./foreignjson.ts";
import { contained, fileBytes, type Gathering, gather, isoTime } from "./gathering.ts";
import { type ReadResult, unreadable } from "./item.ts";
import { itemOf } from "./onepuxitem.ts";
import { openZip, type Zip } from "./zip.ts";

const FORMAT = "1pux";

/** What of `export.data` is read at most, in bytes. */
const DATA_BYTES = 64 * 1_024 * 1_024;

/** Reads 1Password's export. @throws Fault bad_input, too_large */
export function readOnePux(source: Uint8Array | string): Promise<ReadResult> {
  return contained(FORMAT, () => readArchive(source));
}

async function readArchive(source: Uint8Array | string): Promise<ReadResult> {
  const zip = openZip(FORMAT, fileBytes(FORMAT, source));
  const size = zip.size("export.data");
  if (size === null) throw unreadable(FORMAT, "it has no export.data");
  if (size > DATA_BYTES) throw unreadable(FORMAT, "its export.data is too large");
  const data = zip.file("export.data");
  return gather(FORMAT, (gathering) => {
    const accounts = listIn(FORMAT, parseForeign(FORMAT, data), "accounts").map((one) => objectOf(FORMAT, one));
    if (accounts.length === 0) throw unreadable(FORMAT, "it holds no account");
    for (const account of accounts) {
      const prefix = accounts.length > 1 ? textIn(FORMAT, objectIn(FORMAT, account, "attrs"), "accountName") : "";
      for (const one of listIn(FORMAT, account, "vaults")) {
        const vault = objectOf(FORMAT, one);
        const name = textIn(FORMAT, objectIn(FORMAT, vault, "attrs"), "name");
        for (const item of listIn(FORMAT, vault, "items")) {
          readItem(gathering, zip, [prefix, name], objectOf(FORMAT, item));
        }
      }
    }
  }).finally(() => data.fill(0));
}

function readItem(gathering: Gathering, zip: Zip, place: readonly string[], item: JsonObject): void {
  const overview = objectIn(FORMAT, item, "overview");
  const made = itemOf(FORMAT, item);
  const path = [...place, textIn(FORMAT, overview, "title")];
  const tags = listIn(FORMAT, overview, "tags").filter((tag) => typeof tag === "string");
  if ((wholeIn(item, "favIndex") ?? 0) > 0) tags.push("favorite");
  const state = textIn(FORMAT, item, "state");
  if (state === "archived") tags.push("archived");
  const seconds = wholeIn(item, "createdAt");
  const shared = { tags, createdAt: seconds === null ? null : isoTime(seconds * 1_000) };
  const attached = attachments(zip, made.files);
  if (made.value === "" && made.fields.every(({ value }) => value === "") && attached.length > 0) {
    addFiles(gathering, zip, path, attached, shared, attached.length === 1);
    return;
  }
  const { type, value, fields } = made;
  const name = gathering.add({ path, type, value, fields, ...shared });
  for (const what of made.lost) gathering.lose(name, what);
  addFiles(gathering, zip, [name], attached, shared, false);
}

interface Attachment {
  readonly title: string;
  /** The file in the archive, or null where it is missing. */
  readonly entry: string | null;
}

/** Files of an item stand in the archive as `files/ID__NAME`. */
function attachments(zip: Zip, files: readonly JsonObject[]): readonly Attachment[] {
  return files.map((file) => {
    const title = textIn(FORMAT, file, "fileName");
    const id = textIn(FORMAT, file, "documentId");
    const exact = `files/${id}__${title}`;
    const found = zip.size(exact) === null ? null : exact;
    return { title, entry: id === "" ? null : (found ?? indexOf(zip).get(id) ?? null) };
  });
}

const indexes = new WeakMap<Zip, ReadonlyMap<string, string>>();

/** Files by the identifier that their names begin with, for names that 1Password changed. */
function indexOf(zip: Zip): ReadonlyMap<string, string> {
  const known = indexes.get(zip);
  if (known) return known;
  const index = new Map(
    zip.names.flatMap((name) => {
      const [, id] = /^files\/([^_/]+)__/.exec(name) ?? [];
      return id === undefined ? [] : [[id, name]];
    }),
  );
  indexes.set(zip, index);
  return index;
}

function addFiles(
  gathering: Gathering,
  zip: Zip,
  place: readonly string[],
  files: readonly Attachment[],
  shared: { readonly tags: readonly string[]; readonly createdAt: string | null },
  isDocument: boolean,
): void {
  for (const { title, entry } of files) {
    const size = entry === null ? null : zip.size(entry);
    const where = place.filter((part) => part !== "").join("/");
    if (entry === null || size === null) gathering.lose(where, "an attached file, which is missing in the archive");
    else if (size > DEFAULTS.fileBytes) gathering.lose(where, "an attached file of more than 16 MiB");
    else {
      const flat = title.replaceAll("/", "-");
      gathering.add({ path: isDocument ? place : [...place, flat], type: "file", value: zip.file(entry), ...shared });
    }
  }
}
