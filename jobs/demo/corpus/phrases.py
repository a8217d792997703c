"""Parallel sentences in seven languages: whole ones, and ones with a gap for a number or word."""

LANGUAGES = ("English", "Spanish", "French", "German", "Italian", "Portuguese", "Dutch")


def _table(text: str) -> tuple[tuple[str, ...], ...]:
    blocks = text.strip().split("\n\n")
    return tuple(tuple(block.strip().splitlines()) for block in blocks)


SENTENCES = _table("""
Where is the nearest pharmacy?
¿Dónde está la farmacia más cercana?
Où est la pharmacie la plus proche ?
Wo ist die nächste Apotheke?
Dov'è la farmacia più vicina?
Onde fica a farmácia mais próxima?
Waar is de dichtstbijzijnde apotheek?

I would like a glass of water, please.
Quisiera un vaso de agua, por favor.
Je voudrais un verre d'eau, s'il vous plaît.
Ich hätte gern ein Glas Wasser, bitte.
Vorrei un bicchiere d'acqua, per favore.
Eu gostaria de um copo de água, por favor.
Ik wil graag een glas water, alstublieft.

My sister lives in a small village.
Mi hermana vive en un pueblo pequeño.
Ma sœur habite dans un petit village.
Meine Schwester wohnt in einem kleinen Dorf.
Mia sorella vive in un piccolo paese.
A minha irmã mora numa pequena aldeia.
Mijn zus woont in een klein dorp.

The weather is very nice today.
Hoy hace muy buen tiempo.
Il fait très beau aujourd'hui.
Das Wetter ist heute sehr schön.
Oggi il tempo è molto bello.
Hoje o tempo está muito bom.
Het weer is vandaag erg mooi.

I do not understand this word.
No entiendo esta palabra.
Je ne comprends pas ce mot.
Ich verstehe dieses Wort nicht.
Non capisco questa parola.
Não entendo esta palavra.
Ik begrijp dit woord niet.

The children are playing in the garden.
Los niños juegan en el jardín.
Les enfants jouent dans le jardin.
Die Kinder spielen im Garten.
I bambini giocano in giardino.
As crianças brincam no jardim.
De kinderen spelen in de tuin.

We arrived late because of the snow.
Llegamos tarde por la nieve.
Nous sommes arrivés en retard à cause de la neige.
Wir sind wegen des Schnees zu spät angekommen.
Siamo arrivati tardi a causa della neve.
Chegamos atrasados por causa da neve.
We kwamen te laat door de sneeuw.

Can you help me, please?
¿Puede ayudarme, por favor?
Pouvez-vous m'aider, s'il vous plaît ?
Können Sie mir bitte helfen?
Può aiutarmi, per favore?
Pode me ajudar, por favor?
Kunt u mij helpen, alstublieft?

She reads a book every night.
Ella lee un libro todas las noches.
Elle lit un livre tous les soirs.
Sie liest jeden Abend ein Buch.
Lei legge un libro ogni sera.
Ela lê um livro todas as noites.
Ze leest elke avond een boek.

My father works in a hospital.
Mi padre trabaja en un hospital.
Mon père travaille dans un hôpital.
Mein Vater arbeitet in einem Krankenhaus.
Mio padre lavora in un ospedale.
O meu pai trabalha num hospital.
Mijn vader werkt in een ziekenhuis.

The soup is too hot.
La sopa está demasiado caliente.
La soupe est trop chaude.
Die Suppe ist zu heiß.
La zuppa è troppo calda.
A sopa está quente demais.
De soep is te heet.

I have lost my keys.
He perdido mis llaves.
J'ai perdu mes clés.
Ich habe meine Schlüssel verloren.
Ho perso le mie chiavi.
Perdi as minhas chaves.
Ik heb mijn sleutels verloren.

What time does the museum open?
¿A qué hora abre el museo?
À quelle heure ouvre le musée ?
Um wie viel Uhr öffnet das Museum?
A che ora apre il museo?
A que horas abre o museu?
Hoe laat gaat het museum open?

The cat sleeps on the sofa.
El gato duerme en el sofá.
Le chat dort sur le canapé.
Die Katze schläft auf dem Sofa.
Il gatto dorme sul divano.
O gato dorme no sofá.
De kat slaapt op de bank.

He wants to learn to swim.
Él quiere aprender a nadar.
Il veut apprendre à nager.
Er möchte schwimmen lernen.
Vuole imparare a nuotare.
Ele quer aprender a nadar.
Hij wil leren zwemmen.

This street is very noisy.
Esta calle es muy ruidosa.
Cette rue est très bruyante.
Diese Straße ist sehr laut.
Questa strada è molto rumorosa.
Esta rua é muito barulhenta.
Deze straat is erg lawaaierig.

Thank you for your letter.
Gracias por su carta.
Merci pour votre lettre.
Vielen Dank für Ihren Brief.
Grazie per la sua lettera.
Obrigado pela sua carta.
Bedankt voor uw brief.

The train was full of people.
El tren estaba lleno de gente.
Le train était plein de monde.
Der Zug war voller Leute.
Il treno era pieno di gente.
O comboio estava cheio de gente.
De trein zat vol mensen.

Tomorrow we are going to the beach.
Mañana vamos a la playa.
Demain, nous allons à la plage.
Morgen fahren wir an den Strand.
Domani andiamo in spiaggia.
Amanhã vamos à praia.
Morgen gaan we naar het strand.

I am hungry and tired.
Tengo hambre y estoy cansado.
J'ai faim et je suis fatigué.
Ich bin hungrig und müde.
Ho fame e sono stanco.
Estou com fome e cansado.
Ik heb honger en ik ben moe.

The bread is fresh and warm.
El pan está fresco y caliente.
Le pain est frais et chaud.
Das Brot ist frisch und warm.
Il pane è fresco e caldo.
O pão está fresco e quente.
Het brood is vers en warm.

Do you speak English?
¿Habla usted inglés?
Parlez-vous anglais ?
Sprechen Sie Englisch?
Parla inglese?
Fala inglês?
Spreekt u Engels?

Our dog is afraid of thunder.
Nuestro perro tiene miedo de los truenos.
Notre chien a peur du tonnerre.
Unser Hund hat Angst vor dem Donner.
Il nostro cane ha paura dei tuoni.
O nosso cão tem medo de trovões.
Onze hond is bang voor onweer.

The window is open.
La ventana está abierta.
La fenêtre est ouverte.
Das Fenster ist offen.
La finestra è aperta.
A janela está aberta.
Het raam staat open.

They bought a new house last year.
Compraron una casa nueva el año pasado.
Ils ont acheté une nouvelle maison l'année dernière.
Sie haben letztes Jahr ein neues Haus gekauft.
Hanno comprato una casa nuova l'anno scorso.
Compraram uma casa nova no ano passado.
Ze hebben vorig jaar een nieuw huis gekocht.

My grandmother bakes the best cake.
Mi abuela hace el mejor pastel.
Ma grand-mère fait le meilleur gâteau.
Meine Großmutter backt den besten Kuchen.
Mia nonna fa la torta migliore.
A minha avó faz o melhor bolo.
Mijn oma bakt de lekkerste taart.

Please close the door.
Por favor, cierre la puerta.
Fermez la porte, s'il vous plaît.
Bitte schließen Sie die Tür.
Per favore, chiuda la porta.
Por favor, feche a porta.
Doe de deur dicht, alstublieft.

The exam was easier than I thought.
El examen fue más fácil de lo que pensaba.
L'examen était plus facile que je ne le pensais.
Die Prüfung war leichter, als ich dachte.
L'esame è stato più facile di quanto pensassi.
O exame foi mais fácil do que eu pensava.
Het examen was makkelijker dan ik dacht.

It has been raining since yesterday.
Llueve desde ayer.
Il pleut depuis hier.
Es regnet seit gestern.
Piove da ieri.
Chove desde ontem.
Het regent sinds gisteren.

I like to drink coffee in the morning.
Me gusta beber café por la mañana.
J'aime boire du café le matin.
Ich trinke morgens gern Kaffee.
Mi piace bere il caffè la mattina.
Gosto de beber café de manhã.
Ik drink 's ochtends graag koffie.

The old church stands on a hill.
La vieja iglesia está en una colina.
La vieille église se trouve sur une colline.
Die alte Kirche steht auf einem Hügel.
La vecchia chiesa si trova su una collina.
A velha igreja fica numa colina.
De oude kerk staat op een heuvel.

How much does this shirt cost?
¿Cuánto cuesta esta camisa?
Combien coûte cette chemise ?
Wie viel kostet dieses Hemd?
Quanto costa questa camicia?
Quanto custa esta camisa?
Hoeveel kost dit overhemd?

The doctor says that I need to rest.
El médico dice que tengo que descansar.
Le médecin dit que je dois me reposer.
Der Arzt sagt, dass ich mich ausruhen muss.
Il medico dice che devo riposare.
O médico diz que preciso de descansar.
De dokter zegt dat ik moet rusten.

She sings better than her brother.
Ella canta mejor que su hermano.
Elle chante mieux que son frère.
Sie singt besser als ihr Bruder.
Lei canta meglio di suo fratello.
Ela canta melhor do que o irmão.
Ze zingt beter dan haar broer.

The river flows through the city.
El río atraviesa la ciudad.
Le fleuve traverse la ville.
Der Fluss fließt durch die Stadt.
Il fiume attraversa la città.
O rio atravessa a cidade.
De rivier stroomt door de stad.

I forgot to call my mother.
Olvidé llamar a mi madre.
J'ai oublié d'appeler ma mère.
Ich habe vergessen, meine Mutter anzurufen.
Ho dimenticato di chiamare mia madre.
Esqueci-me de ligar à minha mãe.
Ik ben vergeten mijn moeder te bellen.
""")

# {0} is a number from 3 to 20, {1} a city
PATTERNS = _table("""
The train to {1} leaves in {0} minutes.
El tren a {1} sale en {0} minutos.
Le train pour {1} part dans {0} minutes.
Der Zug nach {1} fährt in {0} Minuten ab.
Il treno per {1} parte tra {0} minuti.
O comboio para {1} parte em {0} minutos.
De trein naar {1} vertrekt over {0} minuten.

I have lived in {1} for {0} years.
Vivo en {1} desde hace {0} años.
J'habite à {1} depuis {0} ans.
Ich wohne seit {0} Jahren in {1}.
Vivo a {1} da {0} anni.
Moro em {1} há {0} anos.
Ik woon al {0} jaar in {1}.

We need {0} tickets to {1}.
Necesitamos {0} billetes para {1}.
Nous avons besoin de {0} billets pour {1}.
Wir brauchen {0} Fahrkarten nach {1}.
Abbiamo bisogno di {0} biglietti per {1}.
Precisamos de {0} bilhetes para {1}.
We hebben {0} kaartjes naar {1} nodig.

My friend from {1} has {0} cats.
Mi amigo de {1} tiene {0} gatos.
Mon ami de {1} a {0} chats.
Mein Freund aus {1} hat {0} Katzen.
Il mio amico di {1} ha {0} gatti.
O meu amigo de {1} tem {0} gatos.
Mijn vriend uit {1} heeft {0} katten.

The hotel in {1} has {0} rooms.
El hotel de {1} tiene {0} habitaciones.
L'hôtel de {1} a {0} chambres.
Das Hotel in {1} hat {0} Zimmer.
L'albergo di {1} ha {0} camere.
O hotel em {1} tem {0} quartos.
Het hotel in {1} heeft {0} kamers.

He visited {1} {0} years ago.
Visitó {1} hace {0} años.
Il a visité {1} il y a {0} ans.
Er hat {1} vor {0} Jahren besucht.
Ha visitato {1} {0} anni fa.
Ele visitou {1} há {0} anos.
Hij bezocht {1} {0} jaar geleden.

The flight from {1} is {0} hours late.
El vuelo de {1} lleva {0} horas de retraso.
Le vol de {1} a {0} heures de retard.
Der Flug aus {1} hat {0} Stunden Verspätung.
Il volo da {1} ha {0} ore di ritardo.
O voo de {1} está {0} horas atrasado.
De vlucht uit {1} heeft {0} uur vertraging.

I will stay in {1} for {0} days.
Me quedaré {0} días en {1}.
Je resterai {0} jours à {1}.
Ich bleibe {0} Tage in {1}.
Resterò a {1} per {0} giorni.
Vou ficar {0} dias em {1}.
Ik blijf {0} dagen in {1}.
""")
# spelled alike in all seven languages, and with a first letter that needs no elision
CITIES = ("Madrid", "Toronto", "Chicago", "Boston", "Vancouver", "Santiago", "Dallas", "San Diego")

# one word in each language, for short requests
WORDS = tuple(
    tuple(line.split())
    for line in """
bread pan pain Brot pane pão brood
bridge puente pont Brücke ponte ponte brug
cheese queso fromage Käse formaggio queijo kaas
dream sueño rêve Traum sogno sonho droom
flower flor fleur Blume fiore flor bloem
friendship amistad amitié Freundschaft amicizia amizade vriendschap
horse caballo cheval Pferd cavallo cavalo paard
island isla île Insel isola ilha eiland
kitchen cocina cuisine Küche cucina cozinha keuken
moon luna lune Mond luna lua maan
night noche nuit Nacht notte noite nacht
shoe zapato chaussure Schuh scarpa sapato schoen
spring primavera printemps Frühling primavera primavera lente
tree árbol arbre Baum albero árvore boom
winter invierno hiver Winter inverno inverno winter
""".strip().splitlines()
)
