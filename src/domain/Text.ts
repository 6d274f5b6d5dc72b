/**
 * Text that can be stored and passed on as UTF-8, and comes back as it was.
 */
import { Schema } from "effect"

/** Why a text is none that UTF-8 can carry. */
export const loneSurrogate = "has a lone surrogate, for which UTF-8 has no bytes"

/** No half of a surrogate pair without the other: UTF-8 has no bytes for it, so it would come back as U+FFFD. */
export const isUtf8 = Schema.makeFilter((text: string) => text.isWellFormed() || loneSurrogate)

/** Text that UTF-8 can carry. */
export const Text = Schema.String.check(isUtf8)
