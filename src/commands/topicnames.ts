/** What `keyhold help` explains beside commands, with a summary of each. */
export const TOPICS = {
  "exit-codes": "what each exit code means",
  formats: "formats of import and export",
  references: "kh:// references to secrets",
  environment: "environment variables that keyhold reads",
  passwords: "where a password comes from",
} as const satisfies Record<string, string>;

export type Topic = keyof typeof TOPICS;
