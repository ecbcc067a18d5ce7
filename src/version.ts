declare const KEYHOLD_VERSION: string | undefined;
declare const KEYHOLD_COMMIT: string | undefined;

/** The version of package.json that was compiled in; `0.0.0-source` when the sources run uncompiled. */
export const VERSION: string = typeof KEYHOLD_VERSION === "string" ? KEYHOLD_VERSION : "0.0.0-source";

/** The commit that was compiled in, 40 hexadecimal digits and perhaps `+changes`; `unknown` if there is none. */
export const COMMIT: string = typeof KEYHOLD_COMMIT === "string" ? KEYHOLD_COMMIT : "unknown";
