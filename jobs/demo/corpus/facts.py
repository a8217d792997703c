"""Tables of general knowledge."""


def _table(text: str) -> tuple[tuple[str, ...], ...]:
    lines = text.strip().splitlines()
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in lines)


# country, capital, continent, main official language, currency
COUNTRIES = _table("""
France | Paris | Europe | French | euro
Germany | Berlin | Europe | German | euro
Italy | Rome | Europe | Italian | euro
Spain | Madrid | Europe | Spanish | euro
Portugal | Lisbon | Europe | Portuguese | euro
Greece | Athens | Europe | Greek | euro
Austria | Vienna | Europe | German | euro
Poland | Warsaw | Europe | Polish | zloty
Hungary | Budapest | Europe | Hungarian | forint
Sweden | Stockholm | Europe | Swedish | Swedish krona
Norway | Oslo | Europe | Norwegian | Norwegian krone
Denmark | Copenhagen | Europe | Danish | Danish krone
Iceland | Reykjavik | Europe | Icelandic | Icelandic krona
Ukraine | Kyiv | Europe | Ukrainian | hryvnia
Romania | Bucharest | Europe | Romanian | leu
Japan | Tokyo | Asia | Japanese | yen
China | Beijing | Asia | Mandarin Chinese | renminbi
South Korea | Seoul | Asia | Korean | won
Thailand | Bangkok | Asia | Thai | baht
Vietnam | Hanoi | Asia | Vietnamese | dong
Mongolia | Ulaanbaatar | Asia | Mongolian | tugrik
Iran | Tehran | Asia | Persian | rial
Bangladesh | Dhaka | Asia | Bengali | taka
Indonesia | Jakarta | Asia | Indonesian | rupiah
Nepal | Kathmandu | Asia | Nepali | Nepalese rupee
Saudi Arabia | Riyadh | Asia | Arabic | riyal
Egypt | Cairo | Africa | Arabic | Egyptian pound
Morocco | Rabat | Africa | Arabic | dirham
Kenya | Nairobi | Africa | Swahili | Kenyan shilling
Ethiopia | Addis Ababa | Africa | Amharic | birr
Nigeria | Abuja | Africa | English | naira
Ghana | Accra | Africa | English | cedi
Senegal | Dakar | Africa | French | West African CFA franc
Angola | Luanda | Africa | Portuguese | kwanza
Zambia | Lusaka | Africa | English | kwacha
Brazil | Brasilia | South America | Portuguese | real
Argentina | Buenos Aires | South America | Spanish | Argentine peso
Chile | Santiago | South America | Spanish | Chilean peso
Peru | Lima | South America | Spanish | sol
Colombia | Bogota | South America | Spanish | Colombian peso
Uruguay | Montevideo | South America | Spanish | Uruguayan peso
Mexico | Mexico City | North America | Spanish | Mexican peso
Cuba | Havana | North America | Spanish | Cuban peso
Costa Rica | San Jose | North America | Spanish | colon
Jamaica | Kingston | North America | English | Jamaican dollar
Canada | Ottawa | North America | English and French | Canadian dollar
Australia | Canberra | Oceania | English | Australian dollar
New Zealand | Wellington | Oceania | English | New Zealand dollar
""")

# element, symbol, atomic number, state at room temperature
ELEMENTS = _table("""
hydrogen | H | 1 | gas
helium | He | 2 | gas
lithium | Li | 3 | solid
carbon | C | 6 | solid
nitrogen | N | 7 | gas
oxygen | O | 8 | gas
neon | Ne | 10 | gas
sodium | Na | 11 | solid
magnesium | Mg | 12 | solid
aluminium | Al | 13 | solid
silicon | Si | 14 | solid
sulfur | S | 16 | solid
chlorine | Cl | 17 | gas
potassium | K | 19 | solid
calcium | Ca | 20 | solid
titanium | Ti | 22 | solid
iron | Fe | 26 | solid
nickel | Ni | 28 | solid
copper | Cu | 29 | solid
zinc | Zn | 30 | solid
bromine | Br | 35 | liquid
silver | Ag | 47 | solid
tin | Sn | 50 | solid
tungsten | W | 74 | solid
platinum | Pt | 78 | solid
gold | Au | 79 | solid
mercury | Hg | 80 | liquid
lead | Pb | 82 | solid
uranium | U | 92 | solid
""")

# work, author, kind
WORKS = _table("""
Hamlet | William Shakespeare | play
Romeo and Juliet | William Shakespeare | play
Pride and Prejudice | Jane Austen | novel
Don Quixote | Miguel de Cervantes | novel
War and Peace | Leo Tolstoy | novel
Crime and Punishment | Fyodor Dostoevsky | novel
Moby-Dick | Herman Melville | novel
Jane Eyre | Charlotte Bronte | novel
Great Expectations | Charles Dickens | novel
The Odyssey | Homer | epic poem
The Divine Comedy | Dante Alighieri | epic poem
Faust | Johann Wolfgang von Goethe | play
Les Miserables | Victor Hugo | novel
Frankenstein | Mary Shelley | novel
Dracula | Bram Stoker | novel
The Mona Lisa | Leonardo da Vinci | painting
The Starry Night | Vincent van Gogh | painting
Guernica | Pablo Picasso | painting
The Scream | Edvard Munch | painting
The Night Watch | Rembrandt | painting
The Four Seasons | Antonio Vivaldi | set of concertos
The Magic Flute | Wolfgang Amadeus Mozart | opera
Aida | Giuseppe Verdi | opera
Swan Lake | Pyotr Ilyich Tchaikovsky | ballet
One Hundred Years of Solitude | Gabriel Garcia Marquez | novel
""")

# event, year
EVENTS = _table("""
the first Moon landing | 1969
the fall of the Berlin Wall | 1989
the start of the French Revolution | 1789
the end of the Second World War | 1945
the start of the First World War | 1914
the signing of the American Declaration of Independence | 1776
the fall of Constantinople to the Ottomans | 1453
the Norman conquest of England | 1066
the sinking of the Titanic | 1912
the first voyage of Columbus to the Americas | 1492
the opening of the Suez Canal | 1869
the opening of the Panama Canal | 1914
the Great Fire of London | 1666
the founding of the United Nations | 1945
the Russian October Revolution | 1917
the signing of Magna Carta | 1215
the battle of Waterloo | 1815
the first powered flight of the Wright brothers | 1903
the independence of India | 1947
the Chernobyl disaster | 1986
the release of Nelson Mandela from prison | 1990
the launch of Sputnik, the first artificial satellite | 1957
""")

# animal, class, home, what it eats
ANIMALS = _table("""
blue whale | mammal | the oceans | krill
giant panda | mammal | mountain forests of China | bamboo
emperor penguin | bird | Antarctica | fish and krill
koala | mammal | eastern Australia | eucalyptus leaves
polar bear | mammal | the Arctic | seals
green sea turtle | reptile | warm oceans | seagrass and algae
Komodo dragon | reptile | islands of Indonesia | deer, pigs and carrion
bald eagle | bird | North America | fish
giraffe | mammal | African savannas | leaves of tall trees
honeybee | insect | every continent except Antarctica | nectar and pollen
axolotl | amphibian | lakes near Mexico City | worms and small fish
great white shark | fish | coastal oceans | fish and seals
snow leopard | mammal | mountains of Central Asia | wild sheep and goats
red kangaroo | mammal | the dry inland of Australia | grasses
monarch butterfly | insect | the Americas | milkweed as a caterpillar and nectar as an adult
ostrich | bird | African savannas | plants and insects
seahorse | fish | shallow warm seas | tiny crustaceans
gray wolf | mammal | forests and tundra of the north | deer and elk
Nile crocodile | reptile | African rivers | fish and mammals
orangutan | mammal | rainforests of Borneo and Sumatra | fruit
""")

# achievement, person
PEOPLE = _table("""
developed the theory of general relativity | Albert Einstein
discovered penicillin | Alexander Fleming
formulated the laws of motion and gravitation | Isaac Newton
discovered radium and polonium | Marie and Pierre Curie
proposed evolution by natural selection | Charles Darwin
arranged the periodic table of the elements | Dmitri Mendeleev
patented the telephone in 1876 | Alexander Graham Bell
brought printing with movable type to Europe | Johannes Gutenberg
first observed the moons of Jupiter with a telescope | Galileo Galilei
developed the first rabies vaccine | Louis Pasteur
found the laws of inheritance with pea plants | Gregor Mendel
wrote the first program for a machine, for the Analytical Engine | Ada Lovelace
invented dynamite | Alfred Nobel
invented the World Wide Web | Tim Berners-Lee
was the first human in space | Yuri Gagarin
was the first woman to win a Nobel Prize | Marie Curie
led the first expedition to sail around the world | Ferdinand Magellan
first reached the South Pole in 1911 | Roald Amundsen
designed alternating-current motors | Nikola Tesla
discovered X-rays | Wilhelm Conrad Roentgen
""")

# question, answer
QUESTIONS = _table("""
Why is the sky blue? | Air molecules scatter the short blue waves of sunlight more than the red ones.
Why do leaves change color in autumn? | The green chlorophyll breaks down and yellow and red pigments become visible.
How do vaccines work? | They show the immune system a harmless part of a germ, so that it can react faster later.
What causes the tides of the ocean? | The gravity of the Moon, and to a lesser degree that of the Sun, pulls on the water.
Why do we have seasons? | The axis of the Earth is tilted, so each hemisphere gets more sunlight for half of the year.
What is photosynthesis? | Plants use sunlight to turn water and carbon dioxide into sugar and oxygen.
How does a rainbow form? | Drops of rain bend and reflect sunlight and split it into its colors.
What causes an earthquake? | Rock plates slip along a fault and release stored energy as waves.
How many bones does an adult human have? | An adult human body has 206 bones.
Which organ pumps blood through the body? | The heart pumps blood through the body.
What is the largest organ of the human body? | The skin is the largest organ of the human body.
Which planet is the largest in the solar system? | Jupiter is the largest planet in the solar system.
Which planet is closest to the Sun? | Mercury is the planet closest to the Sun.
Which planet is known as the red planet? | Mars is known as the red planet because of iron oxide in its soil.
What is the highest mountain above sea level? | Mount Everest, in the Himalayas, is 8,849 meters high.
What is the largest ocean on Earth? | The Pacific Ocean is the largest ocean on Earth.
What is the largest hot desert in the world? | The Sahara in northern Africa is the largest hot desert.
What is the deepest known part of the ocean? | The Challenger Deep in the Mariana Trench is about 11 kilometers deep.
At what temperature does water boil at sea level? | Water boils at 100 degrees Celsius at sea level.
How fast does light travel in a vacuum? | Light travels about 299,792 kilometers per second in a vacuum.
What is the chemical formula of table salt? | Table salt is sodium chloride, NaCl.
Which gas do plants take in from the air? | Plants take in carbon dioxide from the air.
What is the main gas in the Earth's atmosphere? | Nitrogen makes up about 78 percent of the atmosphere.
Why does ice float on water? | Ice is less dense than liquid water because its crystals take up more room.
What is inflation in economics? | Inflation is a lasting rise of the general level of prices.
What is a black hole? | It is a region of space whose gravity is so strong that not even light escapes.
How do bats find their way in the dark? | They send out high calls and listen to the echoes.
What does DNA do? | DNA stores the instructions that cells use to grow, work and reproduce.
What is the greenhouse effect? | Gases such as carbon dioxide hold back heat that the Earth radiates.
What is the difference between weather and climate? | Weather is the state of the air now, climate its average over decades.
Why do stars twinkle? | Moving layers of air bend the starlight in changing directions.
How long does the Earth take to orbit the Sun? | The Earth takes about 365 and a quarter days to orbit the Sun.
What do red blood cells do? | Red blood cells carry oxygen from the lungs to the body.
What were the main causes of the fall of the Western Roman Empire? | Historians name weak rulers, civil wars, money troubles and invasions.
What was the Silk Road? | It was a network of trade routes that joined China with the Mediterranean.
What was the Renaissance? | It was a revival of art and learning that began in Italy in the 14th century.
How does a battery produce electricity? | Chemical reactions push electrons from one electrode through a circuit to the other.
Why does metal feel colder than wood? | Metal conducts heat away from the hand faster than wood does.
What is the function of the kidneys? | The kidneys filter waste and extra water out of the blood.
How is glass made? | Sand, soda ash and limestone are melted together and then cooled.
""")  # fmt: skip  # noqa: E501

# river, continent, where it ends
RIVERS = _table("""
Nile | Africa | the Mediterranean Sea
Amazon | South America | the Atlantic Ocean
Danube | Europe | the Black Sea
Mississippi | North America | the Gulf of Mexico
Ganges | Asia | the Bay of Bengal
Volga | Europe | the Caspian Sea
Rhine | Europe | the North Sea
Yangtze | Asia | the East China Sea
Congo | Africa | the Atlantic Ocean
Mekong | Asia | the South China Sea
Zambezi | Africa | the Indian Ocean
Yukon | North America | the Bering Sea
Parana | South America | the Rio de la Plata
""")
