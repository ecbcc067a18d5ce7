import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { type JsonObject, listIn, member, objectIn, objectOf, textIn, wholeIn } from "./foreignjson.ts";
import { field, isoTime } from "./gathering.ts";
import { sshPublicKey } from "./openssh.ts";
import { otpField } from "./otpfield.ts";

/** One item of 1Password's as one of ours, its attached files apart. */
export interface OnePuxItem {
  type: SecretType;
  value: string;
  fields: Field[];
  /** `documentAttributes` and values of kind `file`. */
  files: JsonObject[];
  lost: string[];
}

/** 1Password's categories that have a type of ours; the others become notes with fields. */
const CATEGORIES: Readonly<Record<string, SecretType>> = {
  "001": "login",
  "002": "card",
  "003": "note",
  "004": "identity",
  "005": "password",
  "110": "login",
  "112": "token",
  "114": "ssh",
};

/** Identifiers of fields that are an item's value, by type. */
const VALUES: Readonly<Partial<Record<SecretType, readonly string[]>>> = {
  card: ["ccnum"],
  token: ["credential"],
  password: ["password"],
  login: ["password"],
};

/** Identifiers of fields that have a name of ours. */
const NAMES: Readonly<Record<string, string>> = {
  username: "user",
  cardholder: "holder",
  expiry: "expiry",
  cvv: "code",
  pin: "pin",
  firstname: "first-name",
  initial: "middle-name",
  lastname: "last-name",
  birthdate: "date-of-birth",
};

/** Makes an item of ours of one of 1Password's. @throws Fault bad_input */
export function itemOf(format: string, item: JsonObject): OnePuxItem {
  const details = objectIn(format, item, "details");
  const overview = objectIn(format, item, "overview");
  const category = textIn(format, item, "categoryUuid");
  const type = Object.hasOwn(CATEGORIES, category) ? (CATEGORIES[category] ?? "note") : "note";
  const made: OnePuxItem = { type, value: "", fields: [], files: [], lost: [] };
  loginFields(format, details, made);
  made.value ||= textIn(format, details, "password");
  urls(format, overview, made);
  for (const one of listIn(format, details, "sections")) section(format, objectOf(format, one), made);
  const notes = textIn(format, details, "notesPlain");
  if (made.type === "note" && made.value === "") made.value = notes;
  else made.fields.push(field("notes", "text", notes));
  const document = member(details, "documentAttributes");
  if (document !== undefined) made.files.push(objectOf(format, document));
  const former = listIn(format, details, "passwordHistory").length;
  if (former > 0) made.lost.push(`${former} former passwords`);
  if (member(details, "passkey") !== undefined) made.lost.push("a passkey");
  if (made.type === "ssh") checkSsh(made);
  return made;
}

function loginFields(format: string, details: JsonObject, made: OnePuxItem): void {
  for (const one of listIn(format, details, "loginFields")) {
    const given = objectOf(format, one);
    const value = textIn(format, given, "value");
    const designation = textIn(format, given, "designation");
    const name = textIn(format, given, "name") || textIn(format, given, "id") || "field";
    // buttons and check boxes of the page that was saved
    const isHidden = textIn(format, given, "fieldType") === "P";
    if (designation === "password" && made.value === "") made.value = value;
    else if (designation === "username") made.fields.push(field("user", "text", value));
    else made.fields.push(field(name, isHidden ? "hidden" : "text", value));
  }
}

function urls(format: string, overview: JsonObject, made: OnePuxItem): void {
  const all = listIn(format, overview, "urls").map((one) => textIn(format, objectOf(format, one), "url"));
  if (all.length === 0) all.push(textIn(format, overview, "url"));
  for (const url of all) made.fields.push(field("url", "url", url));
}

function section(format: string, given: JsonObject, made: OnePuxItem): void {
  for (const one of listIn(format, given, "fields")) {
    const entry = objectOf(format, one);
    const id = textIn(format, entry, "id");
    const title = (Object.hasOwn(NAMES, id) && NAMES[id]) || textIn(format, entry, "title") || id || "field";
    const value = objectIn(format, entry, "value");
    const [kind] = Object.keys(value);
    if (kind === undefined) continue;
    if (kind === "file") made.files.push(objectIn(format, value, kind));
    else if (kind === "sshKey") made.value = textIn(format, objectIn(format, value, kind), "privateKey");
    else {
      const found = fieldOf(format, value, kind, title);
      if (found === null) made.lost.push(`field "${title.replace(/\p{C}+/gu, " ")}"`);
      else if (made.value === "" && VALUES[made.type]?.includes(id)) made.value = found.value;
      else made.fields.push(found);
    }
  }
}

/** A field by the kind of its value; null for one that has no text, such as a link to another item. */
function fieldOf(format: string, value: JsonObject, kind: string, title: string): Field | null {
  switch (kind) {
    case "concealed":
      return field(title, "hidden", textIn(format, value, kind));
    case "totp": {
      const text = textIn(format, value, kind);
      return text === "" ? field("otp", "hidden", "") : otpField(text, title);
    }
    case "url":
      return field(title, "url", textIn(format, value, kind));
    case "date":
      return dateField(title, value);
    case "monthYear": {
      const number = wholeIn(value, kind);
      const text = number === null ? "" : String(number).padStart(6, "0");
      return field(title, "text", text === "" ? "" : `${text.slice(4)}/${text.slice(0, 4)}`);
    }
    case "email": {
      const given = member(value, kind);
      if (typeof given === "string" || given === undefined) return field(title, "text", given ?? "");
      return field(title, "text", textIn(format, objectOf(format, given), "email_address"));
    }
    case "address": {
      const parts = objectIn(format, value, kind);
      const lines = ["street", "city", "zip", "state", "country"].map((part) => textIn(format, parts, part));
      return field(title, "text", lines.filter((line) => line !== "").join("\n"));
    }
    case "reference":
      return member(value, kind) === undefined ? field(title, "text", "") : null;
    case "creditCardNumber":
      return field(title, "hidden", textIn(format, value, kind));
    default: {
      const given = member(value, kind);
      return typeof given === "object" ? null : field(title, "text", textIn(format, value, kind));
    }
  }
}

/** Seconds since 1970 as a day; other numbers as they are. */
function dateField(title: string, value: JsonObject): Field {
  const seconds = wholeIn(value, "date");
  if (seconds === null) return field(title, "text", "");
  const day = isoTime(seconds * 1_000);
  if (day !== null) return field(title, "date", day.slice(0, 10));
  const ms = seconds * 1_000;
  const isDay = ms >= -2_208_988_800_000 && ms < 0;
  return isDay ? field(title, "date", new Date(ms).toISOString().slice(0, 10)) : field(title, "text", String(seconds));
}

/** An SSH key that is not in OpenSSH's form becomes a note, for no program of ours could use it as a key. */
function checkSsh(made: OnePuxItem): void {
  const bytes = new TextEncoder().encode(made.value);
  try {
    sshPublicKey(bytes);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    made.type = "note";
    made.lost.push("that it is an SSH key: it is not in OpenSSH's form");
  } finally {
    bytes.fill(0);
  }
}
