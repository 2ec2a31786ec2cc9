"""Words for the labels of lines: an adjective and a noun name a line."""

_ADJECTIVES = """
able acid agile alert amber ample angry apt aqua arid azure bald bare basic bent big bitter
black bland blank blue blunt bold brave brief bright brisk broad bronze brown calm careful cheap
civil clean clear clever close coarse cold common cool coral crisp cruel curly curved damp dark
deep dense dim dizzy double dry dull dusty eager early easy empty equal even exact faint fair
false fancy fast fierce firm first flat fond foggy formal fresh frosty full funny gentle giant
glad gold grand gray great green grim happy hard harsh hazy heavy high hollow honest huge humble
icy idle inner jolly keen kind large late lazy lean level light little lone long loose loud low
lucky mad main major mellow mild minor misty moist muddy narrow neat new nice noble noisy odd
old olive open orange outer pale perfect pink plain polite proud pure purple quick quiet rapid
rare raw ready red rich rigid ripe rough round royal rusty sad safe salty sandy sharp short shy
silent silver simple slim slow small smart smooth soft solid sour spare spicy steady steep stiff
still strong subtle sunny sweet swift tall tame tart tender thick thin tidy tight tiny tough
urban vague vast velvet violet warm wet white whole wide wild wise young
"""
_NOUNS = """
acorn anchor ant apple apron arch arrow badge bag ball banjo barn basket bay beach bean bear bee
bell belt bench bird boat bone book boot bottle bowl box branch bread brick bridge broom brush
bucket bush button cabin cake camel candle canoe cap car card cart castle cat cave chain chair
chalk cherry clam clock cloud coat coin comb coral cork corn cow crab crane crow crown cup
curtain deer desk dish dock dog door dove drum duck eagle ear egg elm engine fan farm feather
fence fern field fig fish flag flame flower flute fog foot forest fork fox frog garden gate
glass glove goat goose grape grass hammer harbor hat hawk hen hill honey hook horn horse house
island ivy jacket jar jewel kettle key kite knife ladder lake lamp leaf lemon lentil library
lion lizard lock log map maple market melon mill mirror moon moose mouse nail needle nest nut
oak ocean onion otter oven owl ox paddle page palm paper park peach pear pearl pen pencil penny
piano pigeon pillow pine pipe plate plum pond pool quill rabbit radish rail rain raven ribbon
ring river road robin roof room root rope rose saddle sail salt sand scarf school seal shed
sheep shell ship shirt shoe shovel snail snow sock spoon spring star stone stool stove straw
street sun swan table tent tiger torch tower trail train tree trout trunk tulip turtle umbrella
valley vase village violin wagon wall walnut well whale wheat wheel willow window wing wolf wood
wool yard
"""

ADJECTIVES = tuple(_ADJECTIVES.split())
NOUNS = tuple(_NOUNS.split())
