// An ordinary text of many kinds: what a model is shown when its activations are measured.

import type { Tokenizer } from '../tokenizer/tokenizer.ts'

const TEXT = `The tenant shall give the landlord written notice of any defect within fourteen days of its discovery. \
Where the landlord fails to act within a reasonable time, the tenant may reduce the rent in proportion to the loss of use. \
This clause does not limit any right that the parties have by law.

Patient: 54-year-old woman, three days of fever (38.9 °C), dry cough and pain on breathing in. No known allergies. \
On examination: crackles over the right lower lobe, respiratory rate 24/min, oxygen saturation 93 %. \
Plan: chest X-ray, blood count, CRP; start amoxicillin 1 g three times a day and see again in 48 hours.

Hi, I ordered two pairs of headphones last Tuesday (order #10-48213) and only one has arrived. The tracking page says \
"delivered". Can you check where the other one is? I'd rather have it sent again than get my money back. Thanks, Dana

I'm sorry about the missing parcel, Dana. I have asked the carrier to trace it and reserved a new pair for you; if it is \
not found by Friday, we will ship the replacement at no cost.

def moving_average(values, width):
    """Mean of each window of \`width\` values."""
    if not 0 < width <= len(values):
        raise ValueError("width must be between 1 and len(values)")
    total = sum(values[:width])
    yield total / width
    for i in range(width, len(values)):
        total += values[i] - values[i - width]
        yield total / width

{"customer": {"id": 8812, "name": "Müller & Söhne", "active": true}, "items": [{"sku": "A-17", "qty": 3, "price": 19.5}]}

Once upon a time there was a small boat that wanted to see the sea. Every morning it asked the river, "Is it far?" and \
the river laughed and said, "Only as far as I go." So one day, when the wind was kind, the boat let go of the shore.

Der Vertrag kann von beiden Seiten mit einer Frist von drei Monaten zum Ende eines Quartals gekündigt werden. \
Le patient doit prendre ce médicament le matin, à jeun, avec un grand verre d'eau. \
El servicio estará disponible de lunes a viernes, de 9:00 a 18:00 horas.

Q: What is 17 × 24?  A: 17 × 24 = 17 × 20 + 17 × 4 = 340 + 68 = 408.
1. Open the settings. 2. Choose "Devices". 3. Press the button for ten seconds until the light blinks blue.
In 2023 the company's revenue rose by 12.4 % to $1.87 billion, while operating costs fell to $640 million.`

/** `rows` rows of `length` tokens of the text, each opened as a sequence of this model is; repeated where it ends. */
export function calibrationRows(
  tokenizer: Tokenizer,
  { rows, length }: { rows: number; length: number },
): number[][] {
  const tokens = tokenizer.encode(TEXT)
  const start = tokenizer.bos_token_id === undefined ? [] : [tokenizer.bos_token_id]
  const fresh = length - start.length
  return Array.from({ length: rows }, (_, row) => [
    ...start,
    ...Array.from({ length: fresh }, (_, i) => tokens[(row * fresh + i) % tokens.length]!),
  ])
}
