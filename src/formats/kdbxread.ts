import { gunzipSync } from "node:zlib";
import { ProtectSaltGenerator } from "kdbxweb";
import type { Asks } from "./foreign.ts";
import { contained, FOREIGN, fileBytes, type Gathering, gather, tooMany } from "./gathering.ts";
import { type ReadResult, unreadable, utf8Text } from "./item.ts";
import { type Opened, openKdbx } from "./kdbxcrypt.ts";
import { addEntry, type KdbxEntry, type KdbxGroup, type Lookup } from "./kdbxentry.ts";
import { walkXml } from "./xml.ts";

const FORMAT = "kdbx";

/** Reads a KeePass database. @throws Fault bad_input, too_large, unsupported, wrong_password */
export async function readKdbx(source: Uint8Array | string, asks: Asks): Promise<ReadResult> {
  const file = fileBytes(FORMAT, source);
  if (file.length < 12) throw unreadable(FORMAT, "it is cut short");
  const opened = await contained(FORMAT, () => openKdbx(file, asks));
  asks.progress(0.5);
  try {
    const stream = await ProtectSaltGenerator.create(opened.streamKey, opened.streamCipher).catch(() => {
      throw unreadable(FORMAT, "its values are protected in an unknown way");
    });
    const text = utf8Text(opened.xml);
    if (text === null) throw unreadable(FORMAT, "its XML is not UTF-8");
    return await gather(FORMAT, (gathering) => {
      const database = parse(text, opened, stream);
      addAll(gathering, database);
      asks.progress(1);
    });
  } finally {
    opened.xml.fill(0);
    opened.streamKey.fill(0);
    for (const binary of opened.binaries) binary.fill(0);
  }
}

interface Database {
  readonly entries: readonly KdbxEntry[];
  readonly binaries: ReadonlyMap<string, Uint8Array>;
  readonly bin: string | null;
}

function addAll(gathering: Gathering, { entries, binaries, bin }: Database): void {
  const byId = new Map(entries.map((entry) => [entry.id, entry]));
  const lookup: Lookup = { entry: (id) => byId.get(id) ?? null, binary: (ref) => binaries.get(ref) ?? null };
  let deleted = 0;
  for (const entry of entries) {
    if (isWithin(entry.group, bin)) deleted++;
    else addEntry(gathering, entry, lookup);
  }
  if (deleted > 0) gathering.lose(null, `${deleted} entries in the recycle bin`);
}

function isWithin(group: KdbxGroup | null, id: string | null): boolean {
  for (let at = group; at !== null && id !== null; at = at.parent) if (at.id === id) return true;
  return false;
}

/** Collects entries while the XML is walked. */
function parse(text: string, opened: Opened, stream: ProtectSaltGenerator): Database {
  const unmask = unmasking(stream);
  const entries: KdbxEntry[] = [];
  const binaries = new Map(opened.binaries.map((binary, i) => [String(i), binary]));
  const path: string[] = [];
  let group: KdbxGroup | null = null;
  let entry: KdbxEntry | null = null;
  let history = 0;
  let key = "";
  let attributes: ReadonlyMap<string, string> = new Map();
  let binaryId = "";
  let bin: string | null = null;
  let hasBin = true;
  walkXml(FORMAT, text, {
    open: (name, given) => {
      path.push(name);
      if (name === "Value" || name === "Binary") attributes = given;
      if (name === "Binary") binaryId = given.get("ID") ?? "";
      if (name === "String" || name === "Binary") key = "";
      if (name === "History") history++;
      else if (history > 0 || entry) return;
      else if (name === "Group") group = { id: "", name: "", parent: group };
      else if (name === "Entry") {
        if (entries.length >= FOREIGN.items) throw tooMany(FORMAT);
        entry = newEntry(group);
        entries.push(entry);
      }
    },
    close: (name, text) => {
      path.pop();
      const parent = path.at(-1);
      // the masks of values follow each other, so that those of former versions count too
      const content = name === "Value" ? unmask(text, attributes, parent === "Binary") : null;
      if (name === "History") history--;
      else if (history > 0) {
        if (name === "Entry" && entry) entry.former++;
      } else if (name === "Key") key = text;
      else if (content !== null && entry && parent === "String") {
        const value = typeof content === "string" ? content : "";
        entry.strings.push({ key, value, isHidden: isTrue(attributes.get("Protected")) });
      } else if (content !== null && entry && parent === "Binary") {
        const ref = attributes.get("Ref");
        entry.binaries.push({ name: key, content: ref ?? (typeof content === "string" ? "" : content) });
      } else if (name === "Entry") entry = null;
      else if (entry) entryMember(entry, parent, name, text);
      else if (name === "Group") group = group?.parent ?? null;
      else if (parent === "Group" && group) groupMember(group, name, text);
      else if (parent === "Meta" && name === "RecycleBinUUID") bin = text.trim();
      else if (parent === "Meta" && name === "HeaderHash") {
        const { headerHash } = opened;
        if (headerHash !== null && text.trim() !== headerHash) throw unreadable(FORMAT, "its header is damaged");
      } else if (parent === "Meta" && name === "RecycleBinEnabled") hasBin = isTrue(text);
      else if (parent === "Binaries" && name === "Binary") {
        const binary = unmask(text, attributes, true);
        if (typeof binary !== "string") binaries.set(binaryId, binary);
      }
    },
  });
  return { entries, binaries, bin: hasBin ? bin : null };
}

const isTrue = (text: string | undefined): boolean => text?.trim().toLowerCase() === "true";

function newEntry(group: KdbxGroup | null): KdbxEntry {
  return { id: "", group, strings: [], binaries: [], tags: "", created: "", expires: false, expiry: "", former: 0 };
}

function groupMember(group: KdbxGroup, name: string, text: string): void {
  if (name === "UUID") group.id = text.trim();
  else if (name === "Name") group.name = text;
}

function entryMember(entry: KdbxEntry, parent: string | undefined, name: string, text: string): void {
  if (parent === "Entry" && name === "UUID") entry.id = text.trim();
  else if (parent === "Entry" && name === "Tags") entry.tags = text;
  else if (parent === "Times" && name === "CreationTime") entry.created = text.trim();
  else if (parent === "Times" && name === "Expires") entry.expires = isTrue(text);
  else if (parent === "Times" && name === "ExpiryTime") entry.expiry = text.trim();
}

/** Gives values as they are meant: without the mask of the inner stream, attachments inflated. */
function unmasking(stream: ProtectSaltGenerator) {
  let inflated = 0;
  return (text: string, attributes: ReadonlyMap<string, string>, isBinary: boolean): string | Uint8Array => {
    const isMasked = isTrue(attributes.get("Protected"));
    if (!isBinary && !isMasked) return text;
    const bytes = base64(text);
    if (isMasked) {
      const mask = new Uint8Array(stream.getSalt(bytes.length));
      for (let i = 0; i < bytes.length; i++) bytes[i] = (bytes[i] ?? 0) ^ (mask[i] ?? 0);
      mask.fill(0);
    }
    if (isBinary) {
      if (!isTrue(attributes.get("Compressed"))) return bytes;
      const plain = new Uint8Array(gunzipSync(bytes, { maxOutputLength: FOREIGN.fileBytes }));
      inflated += plain.length;
      if (inflated > 4 * FOREIGN.fileBytes) throw unreadable(FORMAT, "its attachments unpack to too much");
      return plain;
    }
    const plain = utf8Text(bytes);
    bytes.fill(0);
    if (plain === null) throw unreadable(FORMAT, "a protected value is not text");
    return plain;
  };
}

function base64(text: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(text);
  } catch {
    throw unreadable(FORMAT, "a value is not base64");
  }
}
