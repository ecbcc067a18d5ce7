/** Headings of the root help. */
export const SECTION = {
  server: "Server",
  account: "Account and session",
  secrets: "Secrets",
  federation: "Federation",
  keyrings: "Keyrings",
  ceremonies: "Ceremonies",
  rest: "The rest",
} as const;
