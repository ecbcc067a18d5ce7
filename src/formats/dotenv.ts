import type { ForeignFormat } from "./foreign.ts";

/** A file named `.env`, `.env.local`, `production.env`. */
const PATH = /(?:^|[/\\])(?:\.env(?:\.[\w-]+)*|[\w.-]+\.env)$/;

/** Environment files as the npm package dotenv reads them (docs/formats.md). */
export const dotenv: ForeignFormat = {
  name: "dotenv",
  kind: "many",
  binary: false,
  encrypted: false,
  types: ["password", "passphrase", "pin", "token", "uuid", "login", "note", "card", "totp", "hotp", "ssh", "bip39"],
  keeps: [],
  sniff: (start, path) => PATH.test(path) && hasVariable(start),
  read: async (source) => {
    const { readDotenv } = await import("./dotenvlines.ts");
    return readDotenv(source);
  },
  write: async (items) => {
    const { writeDotenv } = await import("./dotenvlines.ts");
    return writeDotenv(items);
  },
};

function hasVariable(start: Uint8Array): boolean {
  return !start.includes(0) && /^\s*(?:export\s+)?[\w.-]+\s*=/m.test(new TextDecoder().decode(start));
}
