/** What a column of a table becomes; `field:` is followed by the field's name. */
export type Target =
  | "name"
  | "folder"
  | "type"
  | "value"
  | "value-base64"
  | "tags"
  | "favorite"
  | "archived"
  | "created"
  | "expires"
  | "otp"
  | "pairs"
  | "ignore"
  | "lose"
  | `field:${string}`;

/** Columns of one program's table, by their names in lower case. */
export interface Table {
  readonly program: string;
  /** All of these and no others, but for the optional ones. */
  readonly columns: Readonly<Record<string, Target>>;
  readonly optional: readonly string[];
}

/** Tables that their header tells apart. */
export const TABLES: readonly Table[] = [
  {
    program: "Chrome, Edge or Brave",
    columns: { name: "name", url: "field:url", username: "field:user", password: "value", note: "field:notes" },
    optional: ["note"],
  },
  {
    program: "Firefox",
    columns: {
      url: "field:url",
      username: "field:user",
      password: "value",
      httprealm: "lose",
      formactionorigin: "ignore",
      guid: "ignore",
      timecreated: "created",
      timelastused: "ignore",
      timepasswordchanged: "ignore",
    },
    optional: ["httprealm", "formactionorigin", "timelastused", "timepasswordchanged"],
  },
  {
    program: "Safari or 1Password",
    columns: {
      title: "name",
      url: "field:url",
      username: "field:user",
      password: "value",
      notes: "field:notes",
      otpauth: "otp",
      favorite: "favorite",
      archived: "archived",
      tags: "tags",
    },
    optional: ["favorite", "archived", "tags"],
  },
  {
    program: "Bitwarden",
    columns: {
      folder: "folder",
      favorite: "favorite",
      type: "type",
      name: "name",
      notes: "field:notes",
      fields: "pairs",
      reprompt: "ignore",
      archiveddate: "archived",
      login_uri: "field:url",
      login_username: "field:user",
      login_password: "value",
      login_totp: "otp",
    },
    optional: ["archiveddate"],
  },
  {
    program: "LastPass",
    columns: {
      url: "field:url",
      username: "field:user",
      password: "value",
      totp: "otp",
      extra: "field:notes",
      name: "name",
      grouping: "folder",
      fav: "favorite",
    },
    optional: ["totp"],
  },
  {
    program: "KeePassXC",
    columns: {
      group: "folder",
      title: "name",
      username: "field:user",
      password: "value",
      url: "field:url",
      notes: "field:notes",
      totp: "otp",
      icon: "ignore",
      "last modified": "ignore",
      created: "created",
    },
    optional: ["totp", "icon", "last modified", "created"],
  },
  {
    program: "KeePass",
    columns: {
      account: "name",
      "login name": "field:user",
      password: "value",
      "web site": "field:url",
      comments: "field:notes",
    },
    optional: [],
  },
];

/** How the tables begin that keyhold writes. */
export const OWN = ["name", "type", "value"] as const;

/** True for the header of a table that keyhold wrote. */
export function isOwn(header: readonly string[]): boolean {
  return OWN.every((name, i) => header[i] === name);
}

/** The program whose table has that header, or null. */
export function tableOf(header: readonly string[]): Table | null {
  const names = new Set(header.map((name) => name.trim().toLowerCase()));
  if (names.size !== header.length) return null;
  const matches = ({ columns, optional }: Table) =>
    [...names].every((name) => Object.hasOwn(columns, name)) &&
    Object.keys(columns).every((name) => names.has(name) || optional.includes(name));
  return TABLES.find(matches) ?? null;
}

/** The header of a file whose first line it is, without regard to line ends in quotation marks. */
export function firstHeader(text: string): readonly string[] {
  const [line = ""] = text.replace(/^\ufeff/, "").split(/\r?\n|\r/, 1);
  if (line.length > 4_096) return [];
  const delimiter = delimiterOf(line);
  return line.split(delimiter).map((cell) => cell.trim().replace(/^"(.*)"$/, "$1"));
}

/** The delimiter that stands most often in a header line: comma, semicolon or tab. */
export function delimiterOf(line: string): "," | ";" | "\t" {
  const count = (one: string) => line.split(one).length;
  const [semicolons, tabs, commas] = [count(";"), count("\t"), count(",")];
  if (semicolons > commas && semicolons >= tabs) return ";";
  return tabs > commas ? "\t" : ",";
}
