import { FILE_BYTES } from "./item.ts";

/** What is known of a format before it is loaded. */
export interface FormatFacts {
  /** `tree`: a directory. */
  readonly kind: "single" | "many" | "tree";
  readonly reads: boolean;
  readonly writes: boolean;
  /** Whether the content of a file is encrypted: `asked` when it is written with `--protect`. */
  readonly encrypted: "always" | "asked" | "never";
  /** Largest file, in bytes. */
  readonly fileBytes: number;
  /** What everybody who uses the format should know. */
  readonly caution?: string;
}

const single = { kind: "single", reads: true, writes: true, encrypted: "never", fileBytes: FILE_BYTES.single } as const;
const many = { ...single, kind: "many", fileBytes: FILE_BYTES.archive } as const;
const readOnly = { reads: false, writes: false } as const;

/** Every format by its name, in the order in which help shows them and in which marks are looked for. */
export const FORMATS = {
  raw: single,
  hex: single,
  base64: single,
  len8: single,
  json: many,
  jwk: single,
  jwks: { ...many, fileBytes: FILE_BYTES.many },
  pem: { ...single, encrypted: "asked" },
  openssh: single,
  age: { ...many, encrypted: "always", fileBytes: FILE_BYTES.archive + 256 * 1_024 },
  bitwarden: { ...many, encrypted: "asked" },
  "1pux": { ...many, ...readOnly, reads: true },
  kdbx: { ...many, ...readOnly, reads: true, encrypted: "always" },
  pass: { ...many, ...readOnly, kind: "tree", reads: true, encrypted: "always" },
  otpauth: many,
  "otpauth-migration": many,
  bip39: {
    ...single,
    caution: "the words stand for the bytes themselves: no seed of a wallet is derived from them",
  },
  csv: many,
  dotenv: many,
} as const satisfies Readonly<Record<string, FormatFacts>>;
export type FormatName = keyof typeof FORMATS;

/** Every format's name. */
export const FORMAT_NAMES = Object.keys(FORMATS) as readonly FormatName[];

/** Names of the formats that are read, and of those that are written. */
export const READ_FORMATS: readonly FormatName[] = FORMAT_NAMES.filter((name) => FORMATS[name].reads);
export const WRITE_FORMATS: readonly FormatName[] = FORMAT_NAMES.filter((name) => FORMATS[name].writes);

/** What is known of a format. */
export function factsOf(name: FormatName): FormatFacts {
  return FORMATS[name];
}
